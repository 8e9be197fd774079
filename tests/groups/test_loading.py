"""Loading by name: every state stays at its own parameter, every value follows its group, through an edited config."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, optim
from lightning_optim.groups.loading import check_saved
from lightning_optim.groups.plan import Plan
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.optim.test_composite import Deep, equal, weights_of
from tests.schedule.test_factory import STATEFUL
from tests.support.optimizer_runs import through_a_file

# name -> the top of the config, and the rules that hold under every set of rules.
MUON = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.08}}
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "torch's adamw": ({"name": "adamw", "lr": 0.04}, {}),
    "our adamw": ({"name": "adamw", "lr": 0.04, "implementation": "own"}, {}),
    "torch's sgd": ({"name": "sgd", "lr": 0.05, "momentum": 0.9}, {}),
    "torch's amsgrad": ({"name": "adam", "lr": 0.04, "amsgrad": True, "foreach": True}, {}),
    "torch's adagrad": ({"name": "adagrad", "lr": 0.05}, {}),
    "torch's adafactor": ({"name": "adafactor", "lr": 0.05}, {}),
    "our adabelief": ({"name": "adabelief", "lr": 0.04}, {}),
    "our nadamw": ({"name": "nadamw", "lr": 0.04}, {}),
    "our lion": ({"name": "lion", "lr": 0.04}, {}),
    "muon + adamw": ({"name": "adamw", "lr": 0.04}, MUON),
    "muon + lion + sgd": (
        {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        {**MUON, "output": {"params": "head", "optimizer": "lion", "lr": 0.04}},
    ),
}
SAVED = {
    "stem": {"params": "backbone.0", "lr_scale": 0.5},
    "norm": {"params": "backbone.1", "weight_decay": 0.125},
}
# What the rules of the resumed run are, beside those of the config; and whether each parameter's values are the same.
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "the same": (SAVED, True),
    "added": ({**SAVED, "late": {"params": "backbone.4", "lr_scale": 2.0}}, False),
    "renamed": ({"first": SAVED["stem"], "a_norm": SAVED["norm"]}, True),
    "split": ({**SAVED, "biases": {"params": "*.bias", "lr_scale": 1.0}}, True),
    "split by depth": ({**SAVED, "depth": {"layers": "backbone.{i}"}}, True),
    "merged": ({}, False),
    "merged where equal": (
        {"front": {"params": ["backbone.0", "backbone.1"], "lr_scale": 0.5, "weight_decay": 0.125}},
        False,
    ),
    "other rules": ({"decay": {"params": "*.weight", "weight_decay": 0.5}}, False),
}
REORDERED = "reordered"
configs = pytest.mark.parametrize("config", CONFIGS)
UNCHANGED = [*(name for name, (_, same) in CHANGES.items() if same), REORDERED]
unchanged = pytest.mark.parametrize("change", UNCHANGED)
SCHEDULES = dict(STATEFUL)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def factory_for(config: str, rules: dict[str, Any]) -> OptimizerFactory:
    top, always = CONFIGS[config]
    return OptimizerFactory(**top, groups={**always, **rules})


def rules_of(change: str) -> dict[str, Any]:
    return SAVED if change == REORDERED else CHANGES[change][0]


def build(config: str, change: str, model: nn.Module, **top: Any) -> Any:
    factory = factory_for(config, rules_of(change))
    named = list(model.named_parameters())
    return factory(named[::-1] if change == REORDERED else model)


def advance(scheduler: Any, t: int) -> None:
    takes_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or hasattr(scheduler, "_views")
    scheduler.step(*([max(5.0 - t, 0.0)] if takes_metric else []))


def step(model: Deep, optimizer: Any, scheduler: Any, t: int) -> None:
    optimizer.zero_grad()
    model.loss(t).backward()
    optimizer.step()
    if scheduler is not None:
        advance(scheduler, t)


def run(model: Deep, optimizer: Any, scheduler: Any = None, first: int = 0, last: int = 4) -> list[list[Tensor]]:
    weights = []
    for t in range(first, last):
        step(model, optimizer, scheduler, t)
        weights.append(weights_of(model))
    return weights


def tick(optimizer: Any, scheduler: Any, t: int) -> None:
    """A step of which only lr, momentum and betas are told."""
    optimizer.step()
    advance(scheduler, t)


def under(schedule: str, optimizer: Any, num_steps: int = 0) -> Any:
    """The scheduler of an optimizer, so many steps on."""
    scheduler = SchedulerFactory(**SCHEDULES[schedule])(optimizer, 60)
    for t in range(num_steps):
        tick(optimizer, scheduler, t)
    return scheduler


def resume(before: Any, scheduler: Any, resumed: Any, schedule: str) -> Any:
    """The scheduler of an optimizer that has taken up the run of another."""
    other = under(schedule, resumed)
    saved = through_a_file([before.state_dict(), scheduler.state_dict()])
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    return other


def trained(config: str, rules: dict[str, Any] = SAVED, num_steps: int = 4) -> tuple[Deep, Any]:
    model = Deep()
    optimizer = factory_for(config, rules)(model)
    run(model, optimizer, last=num_steps)
    return model, optimizer


def states(model: nn.Module, optimizer: Any) -> dict[str, dict[str, Any]]:
    """Each parameter's state by its name; the model's own, not what the optimizer says of itself."""
    return {name: copy.deepcopy(dict(optimizer.state[p])) for name, p in model.named_parameters()}


def by_parameter(model: nn.Module, optimizer: Any, *keys: str) -> dict[str, list[Any]]:
    """What the group of each parameter says under some keys."""
    places = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: [places[id(p)].get(key) for key in keys] for name, p in model.named_parameters()}


def assert_distinguishable(found: dict[str, dict[str, Any]]) -> None:
    buffers = [(n, k, v) for n, s in found.items() for k, v in s.items() if isinstance(v, Tensor) and k != "step"]
    for place, (name, key, value) in enumerate(buffers):
        for other, its, another in buffers[:place]:
            assert name == other or not torch.equal(value, another), (name, key, other, its)


def assert_names_are_right(model: nn.Module, optimizer: Any) -> None:
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        assert all(p is parameters[name] for name, p in zip(group["param_names"], group["params"], strict=True))
    for name, child in getattr(optimizer, "children", {}).items():
        mine = [group for group in optimizer.param_groups if group["algorithm"] == name]
        assert all(a is b for a, b in zip(mine, child.param_groups, strict=True))
        assert child.state is optimizer.state


# Each state at its own parameter


@configs
@pytest.mark.parametrize("change", [*CHANGES, REORDERED])
@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_every_state_is_at_its_own_parameter(config, change, back) -> None:
    before, after = (change, "the same") if back else ("the same", change)
    model, again = Deep(), Deep()
    optimizer = build(config, before, model)
    run(model, optimizer)
    resumed = build(config, after, again)
    names = [group["name"] for group in resumed.param_groups]
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    expected = states(model, optimizer)
    assert_distinguishable(expected)
    assert all(expected.values()), "each parameter has a state"
    assert equal(states(again, resumed), expected)
    assert [group["name"] for group in resumed.param_groups] == names, "the groups are those of the new config"
    assert_names_are_right(again, resumed)
    run(again, resumed, first=4)


@configs
@unchanged
def test_where_the_values_are_the_same_the_run_goes_on_bitwise(config, change) -> None:
    model, optimizer = trained(config)
    again = Deep()
    again.load_state_dict(model.state_dict())
    resumed = build(config, change, again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    ours, theirs = run(again, resumed, first=4, last=10), run(model, optimizer, first=4, last=10)
    assert [equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True] * 6
    assert equal(states(again, resumed), states(model, optimizer))


CYCLED = ("lr", "betas", "momentum")


@pytest.mark.parametrize("config", ["our nadamw", "torch's sgd", "muon + adamw"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scheduler_goes_on_bitwise_too(config, schedule) -> None:
    factory, model = SchedulerFactory(**SCHEDULES[schedule]), Deep()
    optimizer = factory_for(config, SAVED)(model)
    scheduler = factory(optimizer, 60)
    run(model, optimizer, scheduler, last=9)
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    expected = []
    for t in range(9, 19):
        expected.append((by_parameter(model, optimizer, *CYCLED), weights_of(model)))
        step(model, optimizer, scheduler, t)
    for change in UNCHANGED:
        again = Deep()
        resumed = build(config, change, again)
        other = factory(resumed, 60)
        for part, state in zip((again, resumed, other), saved, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        assert other.get_last_lr() == [group["lr"] for group in resumed.param_groups], change
        for t, (values, weights) in enumerate(expected, start=9):
            assert by_parameter(again, resumed, *CYCLED) == values, (change, t)
            assert equal(weights_of(again), weights), (change, t)
            step(again, resumed, other, t)


# Those that know no lr but the group's own: there, a peak twice as high is a curve twice as high.
ABSOLUTE = {"cosine_annealing", "cosine_annealing_warm_restarts", "cyclic", "reduce_on_plateau"}


@pytest.mark.parametrize("config", ["our nadamw", "torch's sgd", "muon + adamw"])
@pytest.mark.parametrize("schedule", [name for name, given in SCHEDULES.items() if given["name"] not in ABSOLUTE])
def test_a_peak_that_was_0_is_where_the_schedule_would_have_brought_it(config, schedule) -> None:
    """An lr of 0 is no part of any peak."""
    rules = {"stem": SAVED["stem"], "norm": {"params": "backbone.1", "lr_scale": 0.0}}
    model, whole, again = Deep(), Deep(), Deep()
    before, always, resumed = (
        factory_for(config, given)(m) for given, m in ((rules, model), (SAVED, whole), (SAVED, again))
    )
    scheduler, oracle = under(schedule, before, 9), under(schedule, always, 9)
    other = resume(before, scheduler, resumed, schedule)
    for t in range(9, 24):
        ours, theirs = by_parameter(again, resumed, *CYCLED), by_parameter(whole, always, *CYCLED)
        for name, (lr, *cycled) in theirs.items():
            assert ours[name] == [pytest.approx(lr, rel=1e-14), *cycled], (t, name)
        tick(resumed, other, t), tick(always, oracle, t)


@pytest.mark.parametrize("config", ["our nadamw", "torch's sgd", "muon + adamw"])
@pytest.mark.parametrize("schedule", [name for name, given in SCHEDULES.items() if given["name"] not in ABSOLUTE])
def test_under_a_scheduler_an_edited_lr_is_at_the_same_part_of_its_new_peak(config, schedule) -> None:
    for change in ("the same", "renamed", "split"):
        model, again = Deep(), Deep()
        optimizer = factory_for(config, SAVED)(model)
        scheduler = under(schedule, optimizer, 9)
        rules = copy.deepcopy(rules_of(change))
        rules["first" if change == "renamed" else "stem"]["lr_scale"] = 1.0  # it was 0.5
        resumed = factory_for(config, rules)(again)
        other = resume(optimizer, scheduler, resumed, schedule)
        for t in range(9, 24):
            ours, theirs = by_parameter(again, resumed, *CYCLED), by_parameter(model, optimizer, *CYCLED)
            for name, (lr, *cycled) in theirs.items():
                twice = name.startswith("backbone.0")
                # The part of its peak is rounded once.
                assert ours[name][0] == pytest.approx(2 * lr if twice else lr, rel=1e-14), (change, t, name)
                assert ours[name][1:] == cycled, (change, t, name)
            tick(resumed, other, t), tick(optimizer, scheduler, t)


@pytest.mark.parametrize("config", ["our nadamw", "muon + adamw"])
@pytest.mark.parametrize("schedule", [name for name, given in SCHEDULES.items() if given["name"] not in ABSOLUTE])
def test_a_new_group_joins_the_curve_where_the_run_is(config, schedule) -> None:
    """As though its rule had been there from the start."""
    rules = CHANGES["added"][0]
    model, whole, again = Deep(), Deep(), Deep()
    before, always, resumed = (
        factory_for(config, given)(m) for given, m in ((SAVED, model), (rules, whole), (rules, again))
    )
    scheduler, oracle = under(schedule, before, 9), under(schedule, always, 9)
    other = resume(before, scheduler, resumed, schedule)
    for t in range(9, 24):
        ours, theirs = by_parameter(again, resumed, *CYCLED), by_parameter(whole, always, *CYCLED)
        for name, (lr, *cycled) in theirs.items():
            assert ours[name] == [pytest.approx(lr, rel=1e-14), *cycled], (t, name)  # the part of its peak is rounded
        tick(resumed, other, t), tick(always, oracle, t)


# A rule's schedule that comes or goes

MOVES = {
    "constant comes": ({}, {"schedule": "constant"}),
    "constant goes": ({"schedule": "constant"}, {}),
    "a warm-up comes": ({}, {"schedule": {"warmup_steps": 5}}),
    "a schedule of its own comes": ({}, {"schedule": {"name": "exponential", "gamma": 0.75}}),
    "a schedule of its own goes": ({"schedule": {"name": "exponential", "gamma": 0.75}}, {}),
    "one for another": ({"schedule": "constant"}, {"schedule": {"name": "exponential", "gamma": 0.75}}),
}
WITH_WARMUP = [name for name in SCHEDULES if SCHEDULES[name]["name"] not in ("cyclic", "one_cycle", "chained")]


@pytest.mark.parametrize("schedule", [name for name in WITH_WARMUP if name != "reduce_on_plateau"])
@pytest.mark.parametrize("move", MOVES)
def test_a_group_that_changes_its_schedule_is_where_the_new_one_would_have_brought_it(schedule, move) -> None:
    old, new = ({**SAVED, "late": {"params": "head", "weight_decay": 0.25, **said}} for said in MOVES[move])
    model, whole, again = Deep(), Deep(), Deep()
    before, always, resumed = (
        factory_for("muon + adamw", rules)(m) for rules, m in ((old, model), (new, whole), (new, again))
    )
    scheduler, oracle = under(schedule, before, 9), under(schedule, always, 9)
    other = resume(before, scheduler, resumed, schedule)
    for t in range(9, 24):
        assert by_parameter(again, resumed, *CYCLED) == by_parameter(whole, always, *CYCLED), t
        tick(resumed, other, t), tick(always, oracle, t)


# Values


@pytest.mark.parametrize("config", ["torch's adamw", "our adamw", "muon + adamw"])
@pytest.mark.parametrize("change", ["the same", "renamed", "split", REORDERED])
def test_unchanged_values_are_the_checkpoint_s(config, change) -> None:
    model, optimizer = trained(config)
    for group in optimizer.param_groups:
        group["lr"] *= 0.375  # as a curve halfway down
        group["weight_decay"] *= 0.5
        if "betas" in group:
            group["betas"] = (0.875, 0.999)
        else:
            group["momentum"] = 0.875
    again = Deep()
    resumed = build(config, change, again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    keys = ("lr", "betas", "momentum", "weight_decay", "peak_lr")
    assert by_parameter(again, resumed, *keys) == by_parameter(model, optimizer, *keys)


EDITS = [
    ({"weight_decay": 0.5}, "weight_decay", 0.5),
    ({"betas": [0.5, 0.75]}, "betas", (0.5, 0.75)),
    ({"eps": 1e-3}, "eps", 1e-3),
    ({"maximize": True}, "maximize", True),
    ({"lr": 0.08}, "lr", 0.08 * 0.375),
    ({"lr_scale": 2.0}, "lr", 0.08 * 0.375),
    ({"lr": 0.0}, "lr", 0.0),
]


@pytest.mark.parametrize("config", ["torch's adamw", "our adamw", "muon + adamw"])
@pytest.mark.parametrize(("edit", "key", "value"), EDITS, ids=[str(edit) for edit, *_ in EDITS])
def test_edited_values_are_the_config_s_and_no_other_is(config, edit, key, value) -> None:
    rules = {"tuned": {"params": "head", "eps": 1e-7}}
    model, optimizer = trained(config, rules)
    for group in optimizer.param_groups:
        group["lr"] *= 0.375
        group["weight_decay"] *= 0.5
    expected = by_parameter(model, optimizer, "lr", "betas", "eps", "weight_decay", "maximize")
    again = Deep()
    resumed = factory_for(config, {"tuned": {**rules["tuned"], **edit}})(again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    place = ("lr", "betas", "eps", "weight_decay", "maximize").index(key)
    for name in ("head.weight", "head.bias"):
        expected[name][place] = value
    assert by_parameter(again, resumed, "lr", "betas", "eps", "weight_decay", "maximize") == expected
    peaks = by_parameter(again, resumed, "peak_lr")["head.bias"]
    assert peaks == [edit.get("lr", 0.08) if key == "lr" else 0.04]


def test_an_edited_top_holds_for_what_no_rule_says_otherwise() -> None:
    _, optimizer = trained("muon + adamw", {})
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    again = Deep()
    resumed = OptimizerFactory("adamw", lr=0.16, weight_decay=0.25, groups=MUON)(again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in resumed.param_groups}
    assert found == {"hidden": (0.04, 0.1), "default": (0.08, 0.25)}


def test_groups_that_are_merged_take_what_they_agree_on() -> None:
    _, optimizer = trained("torch's adamw")
    for group, lr, first in zip(optimizer.param_groups, (0.001, 0.002, 0.003), (0.5, 0.5, 0.25), strict=True):
        group["lr"], group["betas"] = lr, (first, 0.999)
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["stem", "norm", "default"]
    resumed = factory_for("torch's adamw", {})(Deep())
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    (group,) = resumed.param_groups
    # `stem` has another peak; `norm` and `default` have this one, and the first of them speaks.
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.002, (0.9, 0.999), 0.01)


@pytest.mark.parametrize(
    ("given", "flags"),
    [({"foreach": True}, (True, None)), ({"foreach": False}, (False, None)), ({"fused": True}, (None, True))],
    ids=str,
)
@pytest.mark.parametrize("change", ["the same", "renamed", "split"])
@pytest.mark.parametrize("groups", [{}, MUON], ids=["adamw", "muon + adamw"])
def test_how_a_step_runs_belongs_to_the_run(given, flags, change, groups) -> None:
    saved = OptimizerFactory("adamw", fused=False, foreach=False, groups={**groups, **SAVED})(Deep()).state_dict()
    resumed = OptimizerFactory("adamw", groups={**groups, **rules_of(change)}, **given)(Deep())
    resumed.load_state_dict(saved)
    found = [(group["foreach"], group["fused"]) for group in resumed.param_groups if "fused" in group]
    assert found and set(found) == {flags}


def test_a_cycled_beta_is_the_checkpoint_s_and_an_edited_one_begins_its_own_cycle() -> None:
    factory = SchedulerFactory("one_cycle", total_steps=60)
    model, again = Deep(), Deep()
    optimizer = factory_for("torch's adamw", SAVED)(model)
    scheduler = factory(optimizer)
    run(model, optimizer, scheduler, last=9)
    assert optimizer.param_groups[0]["betas"][0] not in (0.9, 0.95, 0.85)
    resumed = factory_for("torch's adamw", {**SAVED, "norm": {**SAVED["norm"], "weight_decay": 0.25}})(again)
    other = factory(resumed)
    resumed.load_state_dict(optimizer.state_dict()), other.load_state_dict(scheduler.state_dict())
    keys = ("lr", "betas", "max_momentum", "base_momentum", "initial_lr", "max_lr", "min_lr")
    assert by_parameter(again, resumed, *keys) == by_parameter(model, optimizer, *keys)
    assert by_parameter(again, resumed, "weight_decay")["backbone.1.bias"] == [0.25]


def test_loading_changes_no_state_dict_of_the_caller_s() -> None:
    _, optimizer = trained("muon + adamw")
    scheduler = SchedulerFactory("one_cycle")(optimizer, 60)
    saved = copy.deepcopy([optimizer.state_dict(), scheduler.state_dict()])
    before = copy.deepcopy(saved)
    resumed = build("muon + adamw", "split", Deep())
    other = SchedulerFactory("one_cycle")(resumed, 60)
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    assert equal(saved, before)


def test_a_checkpoint_of_edited_rules_is_one_like_any_other() -> None:
    """Saved, edited, saved, edited back."""
    model, optimizer = trained("muon + adamw")
    expected = states(model, optimizer)
    for change in ("split", "renamed", "split by depth", "the same"):
        resumed = build("muon + adamw", change, model)
        resumed.load_state_dict(through_a_file(optimizer.state_dict()))
        optimizer = resumed
        assert equal(states(model, optimizer), expected), change
    other, uninterrupted = trained("muon + adamw")
    assert equal(run(model, optimizer, first=4), run(other, uninterrupted, first=4))


def test_parameters_without_a_state_stay_without() -> None:
    model = Deep()
    optimizer = factory_for("muon + adamw", SAVED)(model)
    model.backbone[3].weight.requires_grad_(False)
    model.head.requires_grad_(False)
    model.loss().backward()
    optimizer.step()
    again = Deep()
    resumed = build("muon + adamw", "split", again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    held = {name for name, p in again.named_parameters() if p in resumed.state}
    assert held == set(dict(again.named_parameters())) - {"backbone.3.weight", "head.weight", "head.bias"}


# Another program's


def foreign(model: nn.Module, *, named: str | None, splits: int = 1, **given: Any) -> Any:
    """A hand-written AdamW; `named`: the prefix of its names, None for none."""
    items = [(f"{named}{n}", p) if named is not None else p for n, p in model.named_parameters()]
    groups = [items] if splits == 1 else [items[: len(items) // 2], items[len(items) // 2 :]]
    return torch.optim.AdamW([{"params": group} for group in groups], **{"lr": 0.02, "weight_decay": 0.03, **given})


@pytest.mark.parametrize("implementation", ["torch", "own"])
@pytest.mark.parametrize("named", [None, ""], ids=["bare", "named"])
def test_a_hand_written_optimizer_s_checkpoint_loads_as_torch_would(implementation, named) -> None:
    model, again = Deep(), Deep()
    plain = foreign(model, named=named, fused=False, foreach=False, betas=(0.8, 0.99))
    run(model, plain)
    again.load_state_dict(model.state_dict())
    optimizer = OptimizerFactory("adamw", lr=0.5, implementation=implementation, foreach=False)(again)
    optimizer.load_state_dict(through_a_file(plain.state_dict()))
    assert equal(states(again, optimizer), states(model, plain))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.02, (0.8, 0.99), 0.03)
    assert group["name"] == "default" and group["param_names"] == list(dict(again.named_parameters()))
    assert equal(run(again, optimizer, first=4), run(model, plain, first=4))


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("config", ["torch's adamw", "our adamw"])
def test_with_names_it_loads_by_them_into_any_rules(config, splits, prefix) -> None:
    model, again = Deep(), Deep()
    plain = foreign(model, named=prefix, splits=splits)
    run(model, plain)
    optimizer = build(config, "split", again)
    fresh = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    with pytest.warns(UserWarning, match="does not say what was configured.*lr and the rest from the config"):
        optimizer.load_state_dict(through_a_file(plain.state_dict()))
    assert equal(states(again, optimizer), states(model, plain))
    assert_names_are_right(again, optimizer)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == fresh


@pytest.mark.parametrize("config", ["torch's adamw", "our adamw", "muon + adamw"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_of_a_wrapped_model_of_ours_are_the_model_s(config, prefix) -> None:
    model, again = Deep(), Deep()
    factory = factory_for(config, SAVED)
    optimizer = factory([(prefix + name, p) for name, p in model.named_parameters()])
    run(model, optimizer)
    resumed = build(config, "split", again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert equal(states(again, resumed), states(model, optimizer))


class Within(nn.Module):
    """A model all of which is under an attribute called as a wrapper would call it."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Deep()

    def loss(self, seed: int = 0) -> Tensor:
        return self.module.loss(seed)


@pytest.mark.parametrize("change", ["the same", "renamed"])
@pytest.mark.parametrize("config", ["torch's adamw", "our adamw"])
def test_names_that_look_like_a_wrapper_s_are_taken_as_they_are_saved(config, change) -> None:
    top, _ = CONFIGS[config]
    stem = {"params": "module.backbone.0", "lr_scale": 0.5}
    model, again = Within(), Within()
    optimizer = OptimizerFactory(**top, groups={"stem": stem})(model)
    run(model, optimizer)
    (saved,) = [group for group in optimizer.param_groups if group["name"] == "stem"]
    assert set(saved["param_names"]) == {"module.backbone.0.weight", "module.backbone.0.bias"}
    resumed = OptimizerFactory(**top, groups={"first" if change == "renamed" else "stem": stem})(again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert equal(states(again, resumed), states(model, optimizer))


def test_without_names_other_groups_are_refused() -> None:
    model = Deep()
    plain = foreign(model, named=None)
    run(model, plain)
    with pytest.raises(ConfigError, match=r"1 param groups .* 3 \(stem, norm, default\)"):
        factory_for("torch's adamw", SAVED)(Deep()).load_state_dict(plain.state_dict())


def test_without_names_groups_of_another_size_are_refused_and_nothing_is_changed() -> None:
    model = Deep()
    plain = foreign(model, named=None, splits=2)
    run(model, plain)
    again = Deep()
    optimizer = factory_for("torch's adamw", {"head": {"params": "head", "lr_scale": 2}})(again)
    assert_refused(again, optimizer, plain.state_dict(), "group", error=ValueError)


# Refused, with nothing changed


def assert_refused(
    model: Deep, optimizer: Any, state_dict: Any, *said: str, error: type[Exception] = ConfigError
) -> None:
    """A load is refused, and what says so names the parameters; nothing is changed by the attempt."""
    run(model, optimizer, last=2)
    before = copy.deepcopy((model, optimizer))
    groups = list(optimizer.param_groups)
    given = copy.deepcopy(state_dict)
    with pytest.raises(error) as caught:
        optimizer.load_state_dict(state_dict)
    assert [part for part in said if part not in str(caught.value)] == [], caught.value
    assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
    assert equal(states(model, optimizer), states(*before))
    assert equal(state_dict, given)
    assert equal(run(model, optimizer, first=2), run(*before, first=2))


class Wider(Deep):
    """Another head; a layer more or less."""

    def __init__(self, head: int = 2, *, more: bool = False, less: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(8, head)
        if more:
            self.neck = nn.Linear(8, 8)
        if less:
            self.backbone[4].bias = None

    def loss(self, seed: int = 0) -> Tensor:
        extra = self.neck.weight.sum() + self.neck.bias.sum() if hasattr(self, "neck") else 0.0
        return super().loss(seed) + extra


@configs
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"head": 3}, ["head."]),
        ({"head": 1}, ["head."]),
        ({"more": True}, ["2 parameters", "neck.weight", "neck.bias"]),
        ({"less": True}, ["1 parameters", "backbone.4.bias"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("there", [True, False], ids=["of another model", "into another model"])
def test_a_checkpoint_of_another_model_is_refused_by_name(config, other, said, there) -> None:
    saved, model = (Wider(**other), Deep()) if there else (Deep(), Wider(**other))
    optimizer = factory_for(config, SAVED)(saved)
    run(saved, optimizer)
    assert_refused(model, factory_for(config, SAVED)(model), through_a_file(optimizer.state_dict()), *said)


def test_a_renamed_parameter_is_named_both_ways() -> None:
    _, optimizer = trained("torch's adamw")
    state_dict = optimizer.state_dict()
    for group in state_dict["param_groups"]:
        group["param_names"] = [name.replace("head", "classifier") for name in group["param_names"]]
    again = Deep()
    said = ["head.weight", "classifier.weight"]
    assert_refused(again, factory_for("torch's adamw", SAVED)(again), state_dict, *said)


@pytest.mark.parametrize("config", ["torch's adamw", "our adamw", "muon + adamw"])
def test_another_set_of_frozen_rules_is_refused_by_name(config) -> None:
    cold = {**SAVED, "cold": {"params": "backbone.4", "frozen": True}}
    _, optimizer = trained(config)
    again = Deep()
    state_dict = optimizer.state_dict()
    assert_refused(
        again, factory_for(config, cold)(again), state_dict, "backbone.4.weight", "backbone.4.bias", "frozen"
    )
    _, optimizer = trained(config, cold)
    again = Deep()
    state_dict = optimizer.state_dict()
    assert_refused(
        again, factory_for(config, SAVED)(again), state_dict, "backbone.4.weight", "backbone.4.bias", "frozen"
    )


def of(name: str, **given: Any) -> OptimizerFactory:
    return OptimizerFactory(name, **given)


HEAD = {"params": "head"}
MATRICES = {"params": "backbone", "kinds": ["matrix"]}
CROSSINGS: dict[str, tuple[OptimizerFactory, OptimizerFactory, str]] = {
    "adam -> sgd": (of("adam"), of("sgd"), "backbone.0.weight"),
    "adam -> sgd with momentum": (of("adam"), of("sgd", momentum=0.9), "backbone.0.weight"),
    "sgd with momentum -> adam": (of("sgd", momentum=0.9), of("adam"), "backbone.0.weight"),
    "adamw -> muon": (of("adamw"), of("adamw", groups=MUON), "backbone.0.weight"),
    "muon -> adamw": (of("adamw", groups=MUON), of("adamw"), "backbone.0.weight"),
    "muon -> lion": (
        of("adamw", groups=MUON),
        of("adamw", groups={"m": {**MATRICES, "optimizer": "lion"}}),
        "backbone.0",
    ),
    "lion -> adam": (of("lion"), of("adam"), "backbone.0.weight"),
    "lion -> our adam": (of("lion"), of("adam", implementation="own"), "backbone.0.weight"),
    "our adam -> lion": (of("adam", implementation="own"), of("lion"), "backbone.0.weight"),
    "adam -> adagrad": (of("adam"), of("adagrad"), "backbone.0.weight"),
    "rmsprop -> adam": (of("rmsprop"), of("adam"), "backbone.0.weight"),
    "adam -> adabelief": (of("adam"), of("adabelief"), "backbone.0.weight"),
    "adam -> rprop": (of("adam"), of("rprop"), "backbone.0.weight"),
    "adam -> asgd": (of("adam"), of("asgd"), "backbone.0.weight"),
    "adam -> adamax": (of("adam"), of("adamax"), "backbone.0.weight"),
    "adam -> adafactor": (of("adam"), of("adafactor"), "backbone.0.weight"),
    "adafactor -> adam": (of("adafactor"), of("adam"), "backbone.0.weight"),
    "muon -> sgd, whose buffer has the same name": (
        of("adamw", groups=MUON),
        of("adamw", groups={"m": {**MATRICES, "optimizer": "sgd", "momentum": 0.9}}),
        "is muon's, and this run has sgd for them",
    ),
    "adamw -> lamb, whose buffers have the same names": (
        of("adamw", implementation="own"),
        of("lamb"),
        "backbone.0.weight",
    ),
    "amsgrad on": (of("adam"), of("adam", amsgrad=True), "backbone.0.weight"),
    "amsgrad on, ours": (
        of("adam", implementation="own"),
        of("adam", amsgrad=True, implementation="own"),
        "backbone.0.weight",
    ),
    "amsgrad on in one rule": (of("adam"), of("adam", groups={"h": {**HEAD, "amsgrad": True}}), "head.weight"),
    "centered on": (of("rmsprop"), of("rmsprop", centered=True), "backbone.0.weight"),
    "momentum of rmsprop on": (of("rmsprop"), of("rmsprop", momentum=0.9), "backbone.0.weight"),
    "adabelief's amsgrad on": (of("adabelief"), of("adabelief", amsgrad=True), "backbone.0.weight"),
}


@pytest.mark.parametrize(("before", "after", "said"), CROSSINGS.values(), ids=CROSSINGS)
def test_the_state_of_another_algorithm_is_refused_by_the_parameter_s_name(before, after, said) -> None:
    model, again = Deep(), Deep()
    optimizer = before(model)
    run(model, optimizer)
    assert_refused(again, after(again), through_a_file(optimizer.state_dict()), said)


CROSSES = {
    "torch's adamw -> ours": (of("adamw"), of("adamw", implementation="own")),
    "ours -> torch's": (of("adamw", implementation="own"), of("adamw")),
    "under a composite, to ours": (
        of("adamw", groups=MUON),
        of("adamw", groups={**MUON, "h": {**HEAD, "cautious_decay": False, "weight_decay_mode": "decoupled"}}),
    ),
    "amsgrad off": (of("adam", amsgrad=True), of("adam")),
    "momentum of sgd on": (of("sgd"), of("sgd", momentum=0.9)),
    "momentum of sgd off": (of("sgd", momentum=0.9), of("sgd")),
    "adam -> adamw": (of("adam"), of("adamw")),
    "nadam -> nadamw": (of("nadam"), of("nadamw")),
    "adaboundw -> adabound": (of("adaboundw"), of("adabound")),
    "amsgrad's own name": (of("adam", amsgrad=True, implementation="own"), of("amsgrad")),
}


@pytest.mark.parametrize(("before", "after"), CROSSES.values(), ids=CROSSES)
def test_what_goes_together_crosses_over(before, after) -> None:
    model, again = Deep(), Deep()
    optimizer = before(model)
    run(model, optimizer)
    again.load_state_dict(model.state_dict())
    resumed = after(again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        saved, loaded = optimizer.state[p], resumed.state[q]
        for key in saved.keys() & loaded.keys():
            # Nadam's product of momenta is a tensor there and a number here.
            if saved[key].ndim == 0:
                assert float(loaded[key]) == float(saved[key])
            else:
                assert torch.equal(loaded[key], saved[key])
    before = weights_of(again)
    after = run(again, resumed, first=4, last=6)[-1]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(float(state.get("step", 6)) == 6 for state in resumed.state.values())


@pytest.mark.parametrize("rules", [SAVED, {"all_of_it": {"params": "*", "lr_scale": 1.0}}], ids=["rules", "none"])
def test_lbfgs_loads_its_own_and_nothing_else(rules) -> None:
    def steps(model: Deep, optimizer: Any, num_steps: int) -> list[Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model.loss()
            loss.backward()
            return loss

        for _ in range(num_steps):
            optimizer.step(closure)
        return weights_of(model)

    factory = OptimizerFactory("lbfgs", lr=0.1, max_iter=3)
    model, again = Deep(), Deep()
    optimizer = factory(model)
    steps(model, optimizer, 2)
    saved = through_a_file(optimizer.state_dict())
    again.load_state_dict(model.state_dict())
    resumed = OptimizerFactory("lbfgs", lr=0.1, max_iter=3, groups={"renamed": {"params": "*", "lr_scale": 1.0}})(again)
    resumed.load_state_dict(saved)
    assert equal(steps(again, resumed, 3), steps(model, optimizer, 3))
    other = Wider(more=True)
    with pytest.raises(ConfigError, match=r"neck\.bias, neck\.weight"):
        factory(other).load_state_dict(saved)
    with pytest.raises(ConfigError):
        factory_for("torch's adamw", rules)(Deep()).load_state_dict(saved)


def test_the_parameters_of_lbfgs_in_another_order_are_refused() -> None:
    """Its state is one vector over all of them."""
    model, factory = Deep(), OptimizerFactory("lbfgs")
    saved = factory(model).state_dict()
    with pytest.raises(ConfigError, match="differ in 10 parameters"):
        factory(list(model.named_parameters())[::-1]).load_state_dict(saved)


# Schedulers of somebody else's


@pytest.mark.parametrize("config", ["torch's adamw", "muon + adamw"])
@pytest.mark.parametrize("change", ["added", "renamed", "split", "merged", REORDERED])
def test_a_hand_made_scheduler_of_changed_groups_is_refused_with_what_to_do(config, change) -> None:
    model, again = Deep(), Deep()
    optimizer = factory_for(config, SAVED)(model)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 60)
    run(model, optimizer, scheduler)
    resumed = build(config, change, again)
    lr_scheduler.CosineAnnealingLR(resumed, 60)
    assert_refused(again, resumed, optimizer.state_dict(), "scheduler: ", "lightning_optim.SchedulerFactory")


@pytest.mark.parametrize("config", ["torch's adamw", "muon + adamw"])
def test_a_hand_made_scheduler_of_the_same_groups_goes_on(config) -> None:
    model, again = Deep(), Deep()
    optimizer = factory_for(config, SAVED)(model)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 60)
    run(model, optimizer, scheduler)
    again.load_state_dict(model.state_dict())
    resumed = factory_for(config, SAVED)(again)
    other = lr_scheduler.CosineAnnealingLR(resumed, 60)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    other.load_state_dict(through_a_file(scheduler.state_dict()))
    assert equal(run(again, resumed, other, 4, 9), run(model, optimizer, scheduler, 4, 9))


@pytest.mark.parametrize("config", ["torch's adamw", "muon + adamw"])
@pytest.mark.parametrize("make", [lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t), lr_scheduler.ExponentialLR])
def test_a_hand_made_scheduler_under_an_edited_lr_is_refused_with_both(config, make) -> None:
    """It has its own list of peaks, and would bring back the old one."""
    make = make if make.__name__ == "<lambda>" else lambda o: lr_scheduler.ExponentialLR(o, 0.9)
    model, again = Deep(), Deep()
    optimizer = factory_for(config, SAVED)(model)
    run(model, optimizer, make(optimizer))
    resumed = factory_for(config, {**SAVED, "stem": {"params": "backbone.0", "lr_scale": 0.25}})(again)
    make(resumed)
    state_dict = optimizer.state_dict()
    assert_refused(again, resumed, state_dict, "scheduler: ", "stem (lr 0.02)", "stem (lr 0.01)", "SchedulerFactory")


def test_the_state_of_another_schedule_is_refused_with_both() -> None:
    _, optimizer = trained("torch's adamw")
    saved = SchedulerFactory("cosine_annealing", T_max=10)(optimizer).state_dict()
    other = SchedulerFactory("exponential", gamma=0.5)(factory_for("torch's adamw", SAVED)(Deep()))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ConfigError, match=r"^scheduler: .* a CosineAnnealingLR, this run's a ExponentialLR"):
        other.load_state_dict(saved)
    assert other.state_dict() == before


def test_a_nameless_state_of_a_scheduler_goes_by_place_and_only_if_as_long() -> None:
    """As from torch's own scheduler, before a run changed to ours."""
    _, optimizer = trained("torch's adamw")
    theirs = lr_scheduler.ExponentialLR(torch.optim.SGD(Deep().parameters(), lr=1.0), 0.5).state_dict()
    with pytest.raises(ConfigError, match=r"^scheduler: .*ExponentialLR.* 3: stem, norm, default"):
        SchedulerFactory("exponential", gamma=0.5)(optimizer).load_state_dict(theirs)
    plain = OptimizerFactory("adamw")(Deep())
    scheduler = SchedulerFactory("exponential", gamma=0.5)(plain)
    scheduler.load_state_dict({**theirs, "last_epoch": 7})
    assert scheduler.last_epoch == 7


# Under stages

STAGES = {
    "head": {"params": ["head", "backbone.4"]},
    "backbone": {"params": "backbone", "at": {"step": 3}, "lr_scale": 0.25, "warmup_steps": 6},
}


class Staged:
    """Both stages thaw one after the other; a checkpoint is of all four parts."""

    def __init__(self, config: str, change: str, schedule: str, live: list[str]) -> None:
        self.model = Deep()
        self.optimizer = build(config, change, self.model)
        self.scheduler = SchedulerFactory(**SCHEDULES[schedule])(self.optimizer, 60)
        stages = claim(parse_stages(STAGES), self.model)
        self.staged = StagedOptimizer(self.optimizer, self.model, stages, [self.scheduler])
        self.staged.activate_stages(live)
        self.optimizer.register_step_pre_hook(self.staged.before_step)
        self.optimizer.register_step_post_hook(self.staged.after_step)
        self.parts = (self.model, self.optimizer, self.scheduler, self.staged)

    def run(self, first: int, last: int) -> list[list[Tensor]]:
        weights = []
        for t in range(first, last):
            if t == 3:
                self.staged.thaw("backbone")
            self.staged.follow()
            step(self.model, self.optimizer, self.scheduler, t)
            weights.append(weights_of(self.model))
        return weights


@pytest.mark.parametrize("at", [2, 5, 11], ids=["before the thaw", "in its warm-up", "after it"])
@pytest.mark.parametrize("config", ["our nadamw", "muon + adamw"])
@pytest.mark.parametrize("schedule", ["warmup_cosine", "one_cycle", "exponential", "cyclic", "reduce_on_plateau"])
def test_under_stages_a_run_goes_on_through_renamed_and_split_groups(config, schedule, at) -> None:
    first = Staged(config, "the same", schedule, ["head"])
    first.run(0, at)
    saved = through_a_file([part.state_dict() for part in first.parts])
    before = states(first.model, first.optimizer)
    first.staged.follow()  # as the callback does before it saves
    values = by_parameter(first.model, first.optimizer, *CYCLED, "weight_decay", "peak_lr") if at > 3 else {}
    theirs = first.run(at, 16)
    for change in UNCHANGED:
        again = Staged(config, change, schedule, ["head"] if at <= 3 else ["head", "backbone"])
        for part, state in zip(again.parts, saved, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        assert equal(states(again.model, again.optimizer), before), change
        if at > 3:
            assert by_parameter(again.model, again.optimizer, *CYCLED, "weight_decay", "peak_lr") == values, change
        ours = again.run(at, 16)
        assert [equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True] * (16 - at), change


@pytest.mark.parametrize("at", [2, 5, 11], ids=["before the thaw", "in its warm-up", "after it"])
@pytest.mark.parametrize("change", ["added", "merged", "other rules"])
@pytest.mark.parametrize("config", ["torch's adamw", "muon + adamw"])
def test_under_stages_every_state_is_at_its_own_parameter_under_other_rules(config, change, at) -> None:
    first = Staged(config, "the same", "warmup_cosine", ["head"])
    first.run(0, at)
    saved = through_a_file([part.state_dict() for part in first.parts])
    again = Staged(config, change, "warmup_cosine", ["head"] if at <= 3 else ["head", "backbone"])
    for part, state in zip(again.parts, saved, strict=True):
        part.load_state_dict(state)
    assert equal(states(again.model, again.optimizer), states(first.model, first.optimizer))
    again.run(at, 14)


# Plan.remap


def test_plan_remap_puts_a_state_dict_into_its_groups() -> None:
    model, optimizer = trained("torch's adamw")
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict)
    plan = factory_for("torch's adamw", CHANGES["split"][0]).plan(model)
    remapped = plan.remap(state_dict)
    assert equal(state_dict, before)
    places = {n: i for g in state_dict["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    assert [group["name"] for group in remapped["param_groups"]] == [group.name for group in plan.groups]
    for group, mine in zip(plan.groups, remapped["param_groups"], strict=True):
        assert list(mine["param_names"]) == list(group.params)
        assert mine["params"] == [places[name] for name in group.params]
    assert equal(remapped["state"], state_dict["state"])


def test_plan_remap_takes_values_as_a_load_does() -> None:
    model, optimizer = trained("torch's adamw")
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    rules = {**SAVED, "late": {"params": "head", "lr_scale": 2.0, "weight_decay": 0.5}}
    factory = factory_for("torch's adamw", rules)
    remapped = factory.plan(model).remap(optimizer.state_dict())
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in remapped["param_groups"]}
    assert found == {"stem": (0.01, 0.01), "norm": (0.02, 0.125), "default": (0.02, 0.01), "late": (0.04, 0.5)}
    resumed = factory(Deep())
    resumed.load_state_dict(optimizer.state_dict())
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in resumed.param_groups} == found


def test_plan_remap_refuses_what_it_cannot_match_by_name() -> None:
    _, optimizer = trained("torch's adamw")
    plan = factory_for("torch's adamw", SAVED).plan(Wider(more=True))
    with pytest.raises(ConfigError, match=r"2 parameters of this run: neck\.weight, neck\.bias"):
        plan.remap(optimizer.state_dict())
    with pytest.raises(ConfigError, match=r"head\.weight has the shape \[2, 8\], the parameter \[3, 8\]"):
        factory_for("torch's adamw", SAVED).plan(Wider(3)).remap(optimizer.state_dict())


def test_check_saved_names_the_groups_that_differ() -> None:
    model, optimizer = trained("torch's adamw")
    saved = optimizer.state_dict()["param_groups"]
    check_saved(factory_for("torch's adamw", SAVED)(model).param_groups, saved)
    with pytest.raises(ConfigError, match=r"3 param groups \(stem, norm, default\), this run 1 \(default\)"):
        check_saved(factory_for("torch's adamw", {})(model).param_groups, saved)
    other = {**SAVED, "stem": {"params": "backbone.3", "lr_scale": 0.5}}
    with pytest.raises(ConfigError, match=r"differ in"):
        check_saved(factory_for("torch's adamw", other)(model).param_groups, saved)


def test_a_plan_of_a_hand_made_optimizer_remaps_too() -> None:
    model, optimizer = trained("our adamw")
    plain = torch.optim.AdamW(model.named_parameters())
    remapped = Plan.of(plain, model).remap(optimizer.state_dict())
    (group,) = remapped["param_groups"]
    assert list(group["param_names"]) == list(dict(model.named_parameters()))


def test_a_member_of_ours_built_by_hand_takes_a_factory_s_checkpoint_by_place() -> None:
    model, optimizer = trained("our lion", {})
    again = Deep()
    plain = optim.Lion(again.parameters())
    plain.load_state_dict(through_a_file(optimizer.state_dict()))
    assert equal(states(again, plain), states(model, optimizer))
