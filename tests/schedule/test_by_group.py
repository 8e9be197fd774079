"""One scheduler for several algorithms and curves: each group is as in an optimizer of its own, also when resumed."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lightning_optim import SchedulerFactory
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.cases import each_value
from tests.support.save_and_load import save_and_load
from tests.support.scheduled_groups import (
    ALGORITHMS,
    ONE_WITHOUT_MOMENTUM,
    PEAKS,
    SGD,
    STEPS,
    WITH_MOMENTUM,
    build_alone,
    build_factory,
    build_net,
    curve_alone,
    curve_of,
    record_curves,
)
from tests.support.schedules import SCHEDULE_CONFIGS, TORCH_SCHEDULES

COSINE: dict[str, Any] = {"name": "warmup_cosine", "warmup_steps": 4}


# Every schedule

CASES = [
    f"{schedule}, {algorithms}, {head}"
    for schedule in SCHEDULE_CONFIGS
    for algorithms in ALGORITHMS
    for head in ("all on one curve", "head constant")
]
FAST = [
    f"cyclic, {ONE_WITHOUT_MOMENTUM}, all on one curve",
    f"one_cycle, {WITH_MOMENTUM}, head constant",
    f"reduce_on_plateau, {ONE_WITHOUT_MOMENTUM}, head constant",
    f"lambda, {WITH_MOMENTUM}, all on one curve",
    f"warmup_stable_decay, {SGD}, head constant",
    f"warmup+step, {SGD}, all on one curve",
    f"warmup+sequential, {WITH_MOMENTUM}, head constant",
    f"chained, {WITH_MOMENTUM}, all on one curve",
]


@pytest.mark.parametrize("case", each_value(CASES, fast=FAST))
def test_each_group_has_the_curve_of_an_optimizer_of_its_own(case) -> None:
    schedule, algorithms, head = case.split(", ")
    factory = SchedulerFactory(**SCHEDULE_CONFIGS[schedule])
    overrides = {"head": "constant"} if head == "head constant" else {}
    optimizer = build_factory(algorithms, **overrides)(build_net())
    curves = record_curves(optimizer, factory(optimizer, STEPS))
    for part in PEAKS:
        assert curve_of(curves, part) == curve_alone(algorithms, part, None if part in overrides else factory), part
    assert len(set(curve_of(curves, "stem"))) > 1, "the schedule changes the lr"


def test_every_schedule_of_the_catalog_is_among_the_cases() -> None:
    assert {config["name"] for config in SCHEDULE_CONFIGS.values()} == set(SCHEDULES)


# Beside every schedule, the override of one group.
RESUMED = [
    f"{schedule}, {algorithms}, neck {neck}"
    for schedule in SCHEDULE_CONFIGS
    for algorithms in ALGORITHMS
    for neck in ("without override", "constant", "exponential")
]
OVERRIDES: dict[str, dict[str, Any]] = {
    "neck without override": {},
    "neck constant": {"neck": "constant"},
    "neck exponential": {"neck": {"name": "exponential", "gamma": 0.9, "warmup_steps": 3}},
}
FAST_RESUMED = [
    f"cyclic, {ONE_WITHOUT_MOMENTUM}, neck without override",
    f"one_cycle, {WITH_MOMENTUM}, neck constant",
    f"reduce_on_plateau, {SGD}, neck constant",
    f"lambda, {SGD}, neck exponential",
    f"warmup_cosine, {WITH_MOMENTUM}, neck exponential",
    f"warmup+sequential, {SGD}, neck exponential",
    f"chained, {WITH_MOMENTUM}, neck exponential",
]


@pytest.mark.parametrize("case", each_value(RESUMED, fast=FAST_RESUMED))
def test_run_resumes_bitwise_from_its_state_dicts(case) -> None:
    schedule, algorithms, neck = case.split(", ")
    scheduler_factory = SchedulerFactory(**SCHEDULE_CONFIGS[schedule])
    optimizer_factory = build_factory(algorithms, **OVERRIDES[neck])

    def build() -> tuple[nn.Module, Any, Any]:
        model = build_net()
        optimizer = optimizer_factory(model)
        return model, optimizer, scheduler_factory(optimizer, STEPS)

    model, optimizer, scheduler = build()
    record_curves(optimizer, scheduler, 0, 12, train=True)
    saved = save_and_load([part.state_dict() for part in (model, optimizer, scheduler)])
    resumed_model, resumed_optimizer, resumed_scheduler = resumed = build()
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    curves = record_curves(resumed_optimizer, resumed_scheduler, 12, 24, train=True)
    assert curves == record_curves(optimizer, scheduler, 12, 24, train=True)
    assert all(map(torch.equal, model.parameters(), resumed_model.parameters()))
    assert resumed_scheduler.get_last_lr() == scheduler.get_last_lr()
    if hasattr(scheduler, "last_epoch"):  # torch's ChainedScheduler has none
        assert resumed_scheduler.last_epoch == scheduler.last_epoch


# Momentum

CYCLES: dict[str, dict[str, Any]] = {
    "one_cycle": {"name": "one_cycle", "total_steps": 60},
    "cyclic": {"name": "cyclic", "base_lr": 0.01, "step_size_up": 5},
    "cyclic exp_range": {"name": "cyclic", "base_lr": 0.01, "step_size_up": 5, "mode": "exp_range", "gamma": 0.9},
}


def curve_of_torch(case: str, algorithms: str, part: str, *, cycle_momentum: bool) -> list[tuple[Any, Any]]:
    """The curve of a part in an optimizer of its own under torch's scheduler."""
    optimizer = build_alone(algorithms, part)
    arguments = {key: value for key, value in CYCLES[case].items() if key != "name"}
    cls = TORCH_SCHEDULES[CYCLES[case]["name"]][0]
    scheduler = cls(optimizer, max_lr=PEAKS[part], cycle_momentum=cycle_momentum, **arguments)
    return curve_of(record_curves(optimizer, scheduler), "default")


@pytest.mark.parametrize("case", CYCLES)
@pytest.mark.parametrize("algorithms", [WITH_MOMENTUM, ONE_WITHOUT_MOMENTUM])
def test_momentum_or_beta1_is_cycled_in_groups_that_have_it(case, algorithms) -> None:
    optimizer = build_factory(algorithms)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**CYCLES[case])(optimizer))
    for part in PEAKS:
        has_momentum = ALGORITHMS[algorithms][part][0] != "adagrad"
        curve = curve_of(curves, part)
        assert curve == curve_of_torch(case, algorithms, part, cycle_momentum=has_momentum), part
        assert (len({momentum for _, momentum in curve}) > 1) is has_momentum
    beta2 = {group["betas"][1] for group in optimizer.param_groups if "betas" in group}
    assert beta2 == {0.999 if algorithms == WITH_MOMENTUM else 0.99}, "beta2 does not change"


@pytest.mark.parametrize("case", CYCLES)
def test_cycle_momentum_true_is_accepted_beside_a_group_without_momentum(case) -> None:
    optimizer = build_factory(ONE_WITHOUT_MOMENTUM)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**CYCLES[case], cycle_momentum=True)(optimizer))
    for part in PEAKS:
        expected = curve_of_torch(case, ONE_WITHOUT_MOMENTUM, part, cycle_momentum=part != "neck")
        assert curve_of(curves, part) == expected, part


@pytest.mark.parametrize("case", CYCLES)
def test_cycle_momentum_false_leaves_the_momentum_of_every_group_alone(case) -> None:
    optimizer = build_factory(WITH_MOMENTUM)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**CYCLES[case], cycle_momentum=False)(optimizer))
    for part in PEAKS:
        assert curve_of(curves, part) == curve_of_torch(case, WITH_MOMENTUM, part, cycle_momentum=False), part
    assert [{momentum for _, momentum in curve_of(curves, part)} for part in PEAKS] == [{0.95}, {0.9}, {0.0}]


@pytest.mark.parametrize("case", CYCLES)
def test_constant_group_keeps_its_momentum_while_others_cycle(case) -> None:
    optimizer = build_factory(WITH_MOMENTUM, neck="constant")(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**CYCLES[case])(optimizer))
    assert set(curve_of(curves, "neck")) == {(0.1, 0.9)}
    for part in ("stem", "head"):
        assert curve_of(curves, part) == curve_of_torch(case, WITH_MOMENTUM, part, cycle_momentum=True), part


def test_override_may_cycle_momentum_beside_a_run_s_curve_that_does_not() -> None:
    cycle = CYCLES["one_cycle"]
    optimizer = build_factory(WITH_MOMENTUM, stem=cycle, neck=cycle)(build_net())
    curves = record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    for part in ("stem", "neck"):
        assert curve_of(curves, part) == curve_of_torch("one_cycle", WITH_MOMENTUM, part, cycle_momentum=True)
    assert curve_of(curves, "head") == curve_alone(WITH_MOMENTUM, "head", SchedulerFactory(**COSINE))


# As a torch scheduler


def test_scheduler_by_group_reports_all_groups_in_the_optimizer_s_order() -> None:
    optimizer = build_factory(WITH_MOMENTUM, neck="constant")(build_net())
    scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    assert scheduler.base_lrs == [PEAKS[group["name"]] for group in optimizer.param_groups]
    assert scheduler.last_epoch == 0
    record_curves(optimizer, scheduler, last=3)
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    assert scheduler.last_epoch == 3


def test_torch_does_not_warn_about_the_order_of_steps() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = build_factory(WITH_MOMENTUM, neck={"warmup_steps": 3})(build_net())
        record_curves(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS), last=3)


def test_view_of_groups_cannot_step() -> None:
    optimizer = build_factory(SGD, neck="constant")(build_net())
    (view, *_) = SchedulerFactory(**COSINE)(optimizer, STEPS)._views
    with pytest.raises(RuntimeError, match="step the optimizer itself"):
        view.step()


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"])
def test_copy_of_optimizer_and_scheduler_has_the_same_curves(copied) -> None:
    def build() -> tuple[Any, Any]:
        optimizer = build_factory(SGD, neck="constant")(build_net())
        scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
        record_curves(optimizer, scheduler, last=7)
        return optimizer, scheduler

    assert record_curves(*copied(build()), first=7) == record_curves(*build(), first=7)


def test_hand_made_scheduler_drives_an_optimizer_without_overrides() -> None:
    optimizer = build_factory(WITH_MOMENTUM)(build_net())
    curves = record_curves(optimizer, lr_scheduler.ExponentialLR(optimizer, 0.9))
    for part in PEAKS:
        alone = build_alone(WITH_MOMENTUM, part)
        assert curve_of(curves, part) == curve_of(
            record_curves(alone, lr_scheduler.ExponentialLR(alone, 0.9)), "default"
        )
