"""`list` and `show` print the optimizers, schedules and presets, and the details of one, as text or JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lightning_optim import list_optimizers, optimizer_info
from lightning_optim.catalog.decay import DECAY_MODES
from lightning_optim.cli.presets import KINDS
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.apps import CHECKOUT
from tests.support.cases import every


def test_list_prints_every_optimizer(cli_output) -> None:
    out = cli_output("list")
    assert all(f" {name} " in out for name in list_optimizers())


def test_list_prints_those_that_match_a_pattern(cli_output) -> None:
    out = cli_output("list", "adam*")
    assert "adamax" in out and "nadam" not in out


@pytest.mark.parametrize("name", every(list_optimizers(), fast=["adam", "adafactor", "lbfgs", "lion", "sparse_adam"]))
def test_show_prints_equations_paper_state_decay_modes_and_hyperparameters(cli_output, name) -> None:
    out, info = cli_output("show", name), optimizer_info(name)
    assert all(text in out for text in (info.summary, info.paper, *info.hyperparameters, *info.buffers))
    assert info.equations and all(f"    {line}" in out for line in info.equations)
    modes = [line.split()[0] for line in out.splitlines() if line.strip().split("  ")[0] in DECAY_MODES]
    assert tuple(modes) == info.decay_modes
    assert out.count("(the default)") == (info.decay != "none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lion", "exp_avg; 4 bytes per"),
        ("adam", "(with amsgrad); 8 bytes per"),
        ("amsgrad", "; 12 bytes per"),
        ("sgd", "; 0 bytes per float32 parameter, at most 4"),
        ("adam_mini", "(a number for each tensor or block); 4 bytes per"),
        ("adafactor", "one row and one column for a matrix"),
        ("lbfgs", "the last history_size steps"),
    ],
)
def test_show_tells_the_size_of_the_state(cli_output, name, expected) -> None:
    (line,) = [line for line in cli_output("show", name).splitlines() if line.startswith("state per parameter")]
    assert expected in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("extra_sgd", "a step evaluates the model 2 times, so it cannot be used with other optimizers"),
        ("lbfgs", "takes one param group only"),
        ("muon", "takes matrices only: parameters of two or more dimensions; torch's class: of exactly two"),
    ],
)
def test_show_tells_the_limits_of_an_optimizer(cli_output, name, expected) -> None:
    assert expected in cli_output("show", name).splitlines()
    assert expected not in cli_output("show", "adamw")


def test_list_prints_schedules_and_presets_of_a_kind(cli_output) -> None:
    out = cli_output("list", "--kind", "scheduler")
    assert all(f" {name} " in out for name in SCHEDULES) and " adamw " not in out
    for kind in ("optimizer/groups", "unfreeze", "monitor"):
        out = cli_output("list", "--kind", kind)
        assert all(f"│ {path.stem} " in out for path in (CHECKOUT / "conf" / kind).glob("*.yaml"))


def test_list_prints_the_configs_that_combine_an_optimizer_with_rules(cli_output) -> None:
    (entry,) = json.loads(cli_output("list", "soap_a*", "--json"))
    assert (entry["name"], entry["algorithm"]) == ("soap_adamw", "adamw")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine_annealing", ["length: T_max, by default the length of the run", "warm-up: optional", "eta_min"]),
        ("noam", ["warm-up: required", "config: scheduler/noam", "    warmup_steps: 4000"]),
        ("one_cycle", ["warm-up: none"]),
        ("step", ["required", "an integer >= 1"]),
        ("lambda", ["class: torch.optim.lr_scheduler.LambdaLR", "from Python only"]),
        ("gradual", ["gradual: The head alone for one epoch", "config: unfreeze/gradual", "    each: {epochs: 1}"]),
        ("full", ["full: As `default`, and also", "config: monitor/full", "    update_norm: true"]),
        ("no_decay", ["config: optimizer/groups/no_decay", "kinds: [bias, norm, no_weight_decay]"]),
        ("adamw_groups", ["config: optimizer/adamw_groups", "- groups: [no_decay]"]),
    ],
)
def test_show_finds_names_of_every_kind(cli_output, name, expected) -> None:
    out = cli_output("show", name)
    assert all(text in out for text in expected), out


def test_a_name_of_several_kinds_is_asked_back(cli_output, cli_error, monkeypatch) -> None:
    monkeypatch.setitem(SCHEDULES, "lion", dataclasses.replace(SCHEDULES["constant"], name="lion"))
    assert (
        "'lion' is the name of several configs: optimizer, scheduler. Type lightning-optim show lion --kind optimizer "
        "or lightning-optim show lion --kind scheduler"
    ) in cli_error("show", "lion")
    assert "update rule" in cli_output("show", "lion", "--kind", "optimizer")
    assert "update rule" not in cli_output("show", "lion", "--kind", "scheduler")


# JSON.


@pytest.mark.parametrize("kind", KINDS)
def test_list_in_json_has_the_same_keys_for_all_names_of_a_kind(cli_output, kind) -> None:
    entries = json.loads(cli_output("list", "--kind", kind, "--json"))
    assert entries and len({tuple(sorted(entry)) for entry in entries}) == 1
    assert all(entry["kind"] == kind and entry["summary"] for entry in entries)
    assert [entry["name"] for entry in entries] == sorted(entry["name"] for entry in entries)


def test_show_in_json_gives_numbers_as_numbers(cli_output) -> None:
    adamw = json.loads(cli_output("show", "adamw", "--json"))
    found = {it["name"]: it["default"] for it in adamw["hyperparameters"]}
    assert (found["lr"], found["betas"], found["fused"]) == (0.001, [0.9, 0.999], None)
    assert adamw["bytes_per_parameter"] == 8 and adamw["own_class"] == "lightning_optim.optim.AdamW"
    step = json.loads(cli_output("show", "step", "--json"))
    (size, gamma) = step["hyperparameters"]
    assert (size["required"], size["default"], gamma["required"], gamma["default"]) == (True, None, False, 0.1)
    assert step["config"]["step_size"] == 1000
    assert json.loads(cli_output("show", "gradual", "--json"))["config"]["stages"]["top"]["lr_scale"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "cosine_anealing"], "there is no optimizer 'cosine_anealing'. Did you mean 'cosine_annealing'?"),
        (["show", "gradul", "--kind", "unfreeze"], "there is no unfreeze 'gradul'. Did you mean 'gradual'?"),
        (["list", "schedules"], "no optimizer matches 'schedules'. Type lightning-optim list --kind scheduler"),
        (["list", "warmup*"], "no optimizer matches 'warmup*'. Type lightning-optim list 'warmup*' --kind scheduler"),
        (["list", "fll", "--kind", "monitor"], "no monitor matches 'fll'. Did you mean 'full'?"),
        (["show", "lion", "--kernel", "c", "--json"], "--json: a kernel is printed as source code"),
    ],
    ids=["show", "show a kind", "list a kind's name", "list another kind's", "list a kind", "kernel"],
)
def test_a_mistake_is_refused_with_what_to_type(cli_error, arguments, message) -> None:
    assert message in cli_error(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "adm"], "no optimizer matches 'adm'. Did you mean 'adam'?"),
        (["show", "admw"], "there is no optimizer 'admw'. Did you mean 'adamw'?"),
    ],
    ids=["list", "show"],
)
def test_an_unknown_name_is_refused_with_the_nearest(cli_error, arguments, message) -> None:
    assert message in cli_error(*arguments)


@pytest.mark.parametrize(
    ("language", "line"),
    [("c", "const real t13 = op_sign(t12);"), ("triton", "t13 = (op_sign(t12))")],
)
def test_show_prints_the_kernel_of_a_rule(cli_output, language, line) -> None:
    assert line in cli_output("show", "lion", "--kernel", language)


def test_show_says_where_there_is_no_kernel(cli_error) -> None:
    assert "--kernel: rprop is not one of our own optimizers" in cli_error("show", "rprop", "--kernel", "c")
    assert "multiplies matrices" in cli_error("show", "muon", "--kernel", "c")
