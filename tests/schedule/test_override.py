"""`schedule:` in a rule: what it means, which values are refused, and who must build the scheduler."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.cases import every
from tests.support.messages import check_message
from tests.support.scheduled_groups import (
    ALGORITHMS,
    PEAKS,
    SGD,
    STEPS,
    WITH_MOMENTUM,
    build_factory,
    build_net,
    curve_alone,
    curve_of,
    lrs_of,
    record_curves,
    set_gradients,
)
from tests.support.schedules import SCHEDULE_CONFIGS

COSINE: dict[str, Any] = {"name": "warmup_cosine", "warmup_steps": 4}
algorithms_cases = pytest.mark.parametrize("algorithms", every(ALGORITHMS, fast=[WITH_MOMENTUM]))


# Meaning


@algorithms_cases
def test_constant_keeps_the_lr_while_other_groups_follow_the_curve(algorithms) -> None:
    optimizer = build_factory(algorithms, head="constant")(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert lrs_of(curves, "head") == [0.05] * STEPS
    formula = [(t + 1) / 4 if t < 4 else (1 + math.cos(math.pi * (t - 4) / (STEPS - 4))) / 2 for t in range(STEPS)]
    for part in ("stem", "neck"):
        # lr × factor is rounded differently from the formula.
        assert [lr / PEAKS[part] for lr in lrs_of(curves, part)] == pytest.approx(formula, abs=1e-12)


# (the run's schedule, the override, the arguments that result)
WITHOUT_NAME: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"name": "warmup_cosine", "warmup_steps": 4}, {"warmup_steps": 9}, {"warmup_steps": 9}),
    ({"name": "warmup_cosine", "warmup_steps": 4}, {"warmup_steps": 0}, {"warmup_steps": 0}),
    ({"name": "warmup_cosine", "final_scale": 0.1}, {"warmup_steps": 3}, {"final_scale": 0.1, "warmup_steps": 3}),
    ({"name": "exponential", "gamma": 0.9}, {"warmup_steps": 9}, {"gamma": 0.9, "warmup_steps": 9}),
    ({"name": "exponential", "gamma": 0.9}, {"gamma": 0.8}, {"gamma": 0.8}),
    ({"name": "cosine_annealing", "T_max": 9}, {"T_max": 7, "eta_min": 0.01}, {"T_max": 7, "eta_min": 0.01}),
    ({"name": "warmup_linear", "total_steps": 20}, {"total_steps": 10}, {"total_steps": 10}),
    ({"name": "noam", "warmup_steps": 4}, {"warmup_steps": 8}, {"warmup_steps": 8}),
    # reduce_on_plateau has a `factor` too, which must be < 1.
    ({"name": "constant", "factor": 0.5}, {"factor": 1.0}, {"factor": 1.0}),
]


@algorithms_cases
@pytest.mark.parametrize(("run", "override", "arguments"), WITHOUT_NAME, ids=str)
def test_without_a_name_it_is_the_run_s_schedule_with_other_arguments(algorithms, run, override, arguments) -> None:
    optimizer = build_factory(algorithms, neck=override)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**run)(optimizer, STEPS))
    overridden = SchedulerFactory(**{"name": run["name"], **arguments})
    assert curve_of(curves, "neck") == curve_alone(algorithms, "neck", overridden)
    for part in ("stem", "head"):
        assert curve_of(curves, part) == curve_alone(algorithms, part, SchedulerFactory(**run))
    assert curve_of(curves, "neck") != curve_alone(algorithms, "neck", SchedulerFactory(**run))


ALLOWED_IN_RULES = [
    name
    for name, config in SCHEDULE_CONFIGS.items()
    if not SCHEDULES[config["name"]].takes_function and config["name"] != "reduce_on_plateau"
]
NAMED = [f"{name}, {algorithms}" for name in ALLOWED_IN_RULES for algorithms in ALGORITHMS]
FAST_NAMED = ["step", "cyclic", "one_cycle", "warmup_cosine", "warmup+exponential", "warmup+sequential", "chained"]


@pytest.mark.parametrize("case", every(NAMED, fast=[f"{name}, {WITH_MOMENTUM}" for name in FAST_NAMED]))
def test_with_a_name_it_is_a_schedule_of_its_own(case) -> None:
    name, algorithms = case.split(", ")
    override = SCHEDULE_CONFIGS[name]
    optimizer = build_factory(algorithms, neck=override)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert curve_of(curves, "neck") == curve_alone(algorithms, "neck", SchedulerFactory(**override))
    for part in ("stem", "head"):
        assert curve_of(curves, part) == curve_alone(algorithms, part, SchedulerFactory(**COSINE))


@pytest.mark.parametrize(
    ("override", "factors"),
    [
        ("constant", [1.0] * 5),
        ({"name": "constant"}, [1.0] * 5),
        ({"name": "constant", "warmup_steps": 3}, [1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        ({"name": "constant", "factor": 0.5, "total_iters": 2}, [0.5, 0.5, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_constant_keeps_the_lr_unless_factor_is_given(override, factors) -> None:
    optimizer = build_factory(SGD, neck=override)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS), last=5)
    assert lrs_of(curves, "neck") == [0.1 * factor for factor in factors]


def test_groups_with_equal_schedules_share_a_curve() -> None:
    shared = build_factory(SGD, stem={"warmup_steps": 2}, neck={"warmup_steps": 2})(build_net())
    assert len(SchedulerFactory(**COSINE)(shared, STEPS).state_dict()["curves"]) == 2


def test_three_groups_may_have_three_curves() -> None:
    optimizer = build_factory(SGD, stem={"warmup_steps": 2}, neck="constant")(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert curve_of(curves, "stem") == curve_alone(SGD, "stem", SchedulerFactory("warmup_cosine", warmup_steps=2))
    assert curve_of(curves, "neck") == curve_alone(SGD, "neck", None)
    assert curve_of(curves, "head") == curve_alone(SGD, "head", SchedulerFactory(**COSINE))


def test_every_group_may_have_its_own_schedule() -> None:
    optimizer = build_factory(SGD, **{part: {"warmup_steps": 2} for part in PEAKS})(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    for part in PEAKS:
        assert curve_of(curves, part) == curve_alone(SGD, part, SchedulerFactory("warmup_cosine", warmup_steps=2))


# The length of the run

NEEDS_LENGTH: list[tuple[dict[str, Any], Any, bool]] = [
    ({"name": "exponential", "gamma": 0.9}, "constant", False),
    ({"name": "exponential", "gamma": 0.9}, {"name": "warmup_cosine"}, True),
    ({"name": "exponential", "gamma": 0.9}, {"name": "warmup_cosine", "total_steps": 20}, False),
    ({"name": "exponential", "gamma": 0.9}, {"warmup_steps": 3}, False),
    ({"name": "warmup_cosine"}, "constant", True),
    ({"name": "warmup_cosine", "total_steps": 20}, {"warmup_steps": 3}, False),
    ({"name": "cosine_annealing", "T_max": 20}, {"eta_min": 0.01}, False),
]


@pytest.mark.parametrize(
    ("run", "override", "needed"), NEEDS_LENGTH, ids=[f"{run['name']} {override}" for run, override, _ in NEEDS_LENGTH]
)
def test_length_is_needed_if_the_run_s_schedule_or_an_override_needs_it(run, override, needed) -> None:
    optimizer, factory = build_factory(SGD, neck=override)(build_net()), SchedulerFactory(**run)
    assert factory.needs_total_steps_for(optimizer) is needed
    if not needed:
        factory(optimizer)
        return
    with pytest.raises(ConfigError, match=r"total_steps"):
        factory(optimizer)
    factory(optimizer, 20)


def test_length_is_not_needed_if_no_group_follows_the_schedule_that_needs_it() -> None:
    optimizer = build_factory(SGD, **dict.fromkeys(PEAKS, "constant"))(build_net())
    assert not SchedulerFactory("warmup_cosine").needs_total_steps_for(optimizer)
    curves = record_curves(optimizer, SchedulerFactory("warmup_cosine")(optimizer))
    assert set(curve_of(curves, "neck")) == {(0.1, 0.9)}


# Who builds the scheduler

OVERRIDES = ["constant", {"warmup_steps": 5}, {"name": "linear"}]


def build_by_hand(optimizer: Any) -> Any:
    return lr_scheduler.ExponentialLR(optimizer, 0.9)


@pytest.mark.parametrize("override", OVERRIDES, ids=str)
@pytest.mark.parametrize("algorithms", [SGD, WITH_MOMENTUM])
def test_override_with_a_hand_made_scheduler_is_refused_at_the_first_step(algorithms, override) -> None:
    model = build_net()
    optimizer = build_factory(algorithms, neck=override)(model)
    build_by_hand(optimizer)
    before = copy.deepcopy(model.state_dict())
    set_gradients(model.parameters(), 1)
    with pytest.raises(ConfigError, match=r"^schedule: .*'neck'.*SchedulerFactory"):
        optimizer.step()
    assert all(map(torch.equal, before.values(), model.state_dict().values()))


@pytest.mark.parametrize("override", OVERRIDES, ids=str)
@pytest.mark.parametrize("algorithms", [SGD, WITH_MOMENTUM])
def test_override_without_a_scheduler_is_refused_at_the_first_step(algorithms, override) -> None:
    model = build_net()
    optimizer = build_factory(algorithms, neck=override)(model)
    set_gradients(model.parameters(), 1)
    with pytest.raises(ConfigError, match=r"^schedule: .*'neck'.*configure_optimizers"):
        optimizer.step()


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.parts = build_net()


def factory_for_module(**schedules: Any) -> OptimizerFactory:
    rules = {
        part: {"params": f"parts.{part}", "lr": lr, **({"schedule": schedules[part]} if part in schedules else {})}
        for part, lr in PEAKS.items()
    }
    return OptimizerFactory("sgd", momentum=0.9, groups=rules)


@pytest.mark.parametrize(
    ("override", "factors"),
    [
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"name": "exponential", "gamma": 0.5}, [1.0, 0.5, 0.25, 0.125, 0.0625]),
        ("constant", [1.0] * 5),
    ],
    ids=str,
)
def test_configure_optimizers_builds_the_override_without_a_scheduler_config(override, factors) -> None:
    built = configure_optimizers(Module(), factory_for_module(neck=override))
    assert built["lr_scheduler"]["interval"] == "step"
    curves = record_curves(built["optimizer"], built["lr_scheduler"]["scheduler"], last=5)
    assert lrs_of(curves, "neck") == [0.1 * factor for factor in factors]
    assert lrs_of(curves, "head") == [0.05] * 5


def test_configure_optimizers_builds_no_scheduler_without_a_config_or_an_override() -> None:
    assert list(configure_optimizers(Module(), factory_for_module())) == ["optimizer"]


# Refused

WRONG: list[tuple[Any, list[str]]] = [
    ("cosin", ["name", "'cosin'", "cosine_annealing"]),
    ("", ["name", "''"]),
    (3, ["", "3", "schedule: constant"]),
    ([], ["", "[]", "schedule: constant"]),
    ({}, ["", "{}", "schedule: constant"]),
    (["constant"], ["", "['constant']", "schedule: constant"]),
    ({"name": "step"}, ["step_size", "step needs it"]),
    ({"name": "step", "step_sise": 3}, ["step_sise", "Did you mean 'step_size'?"]),
    ({"name": "step", "step_size": 0}, ["step_size", "0", "an integer >= 1"]),
    ({"name": "one_cycle", "max_lr": 0.1}, ["max_lr", "each group's lr is its peak"]),
    ({"name": None}, ["name", "None"]),
    ({"name": "linear", "interval": "epoch"}, ["interval", "same for all groups"]),
    ({"interval": "epoch"}, ["interval", "same for all groups"]),
    ({"warmup_step": 3}, ["warmup_step", "Did you mean 'warmup_steps'?"]),
    ({"warmup_steps": -1}, ["warmup_steps", "-1", "an integer >= 0"]),
    ({"warmup_steps": "a"}, ["warmup_steps", "'a'", "an integer >= 0"]),
    ({"warmup_steps": None}, ["warmup_steps", "None", "an integer >= 0"]),
    ({"gamma": "x"}, ["gamma", "'x'", "a finite number > 0"]),
    ({"name": "reduce_on_plateau"}, ["name", "reduce_on_plateau", "cannot differ by group"]),
    ("reduce_on_plateau", ["name", "reduce_on_plateau", "cannot differ by group"]),
    ({"name": "lambda", "lr_lambda": abs}, ["name", "lambda", "cannot differ by group"]),
    ("multiplicative", ["lr_lambda", "multiplicative"]),
    ({"name": "sequential", "schedulers": [{"name": "step"}], "milestones": [3]}, ["schedulers[0].step_size"]),
]


@pytest.mark.parametrize(("override", "said"), WRONG, ids=[str(override) for override, _ in WRONG])
def test_wrong_override_is_refused_when_the_factory_is_created(override, said) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"neck": {"params": "neck", "schedule": override}})
    key = "groups.neck.schedule" + (f".{said[0]}" if said[0] else "")
    check_message(caught, key, *said[1:])


WRONG_WITH_RUN: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"name": "exponential", "gamma": 0.9}, {"T_max": 5}, ["schedule.T_max", "exponential", "neck"]),
    ({"name": "one_cycle"}, {"warmup_steps": 3}, ["schedule.warmup_steps", "one_cycle", "neck"]),
    ({"name": "reduce_on_plateau"}, {"warmup_steps": 3}, ["schedule.warmup_steps", "reduce_on_plateau", "neck"]),
    ({"name": "step", "step_size": 3}, {"milestones": [3]}, ["schedule.milestones", "step", "neck"]),
    ({"name": "exponential", "gamma": 0.9}, {"total_steps": 9}, ["schedule.total_steps", "exponential", "neck"]),
    ({"name": "noam", "warmup_steps": 3}, {"warmup_steps": 0}, ["schedule.warmup_steps", "noam", "neck"]),
    ({"name": "warmup_cosine"}, {"warmup_steps": 40}, ["schedule.warmup_steps", "40", "30 steps", "neck"]),
    (
        {"name": "warmup_cosine"},
        {"name": "warmup_linear", "warmup_steps": 40},
        ["schedule.warmup_steps", "40", "30 steps", "neck"],
    ),
    ({"name": "warmup_cosine"}, {"name": "cyclic", "base_lr": 0.2}, ["schedule.base_lr", "0.2", "0.1", "neck"]),
]


@pytest.mark.parametrize(
    ("run", "override", "said"),
    WRONG_WITH_RUN,
    ids=[f"{run['name']} {override}" for run, override, _ in WRONG_WITH_RUN],
)
def test_override_that_does_not_fit_the_run_s_schedule_is_refused_with_the_group(run, override, said) -> None:
    optimizer = build_factory(SGD, neck=override)(build_net())
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(**run)(optimizer, STEPS)
    check_message(caught, *said)


def test_rules_with_different_schedules_for_one_group_need_a_priority() -> None:
    groups = {"neck": {"params": "neck", "schedule": "constant"}, "all_of_it": {"params": "*", "schedule": "linear"}}
    with pytest.raises(ConfigError, match=r"^groups\.all_of_it\.schedule: .*groups\.neck\.schedule.*priority: 1"):
        OptimizerFactory("sgd", groups=groups)(build_net())
    groups["neck"]["priority"] = 1
    optimizer = OptimizerFactory("sgd", groups=groups)(build_net())
    found = {group["name"]: group["schedule"] for group in optimizer.param_groups}
    assert found == {"all_of_it": {"name": "linear"}, "all_of_it.neck": {"name": "constant"}}
