"""`list` and `show` print the optimizers and the details of one."""

from __future__ import annotations

import pytest

from lightning_optim import list_optimizers, optimizer_info
from lightning_optim.catalog.decay import DECAY_MODES
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
        ("muon", "takes 2-D parameters only"),
    ],
)
def test_show_tells_the_limits_of_an_optimizer(cli_output, name, expected) -> None:
    assert expected in cli_output("show", name).splitlines()
    assert expected not in cli_output("show", "adamw")


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
    [("c", "const real t13 = op_sign(t12);"), ("triton", "t13 = op_sign(t12)")],
)
def test_show_prints_the_kernel_of_a_rule(cli_output, language, line) -> None:
    assert line in cli_output("show", "lion", "--kernel", language)


def test_show_says_where_there_is_no_kernel(cli_error) -> None:
    assert "--kernel: muon is not one of our own optimizers" in cli_error("show", "muon", "--kernel", "c")
