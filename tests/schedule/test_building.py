"""Building a schedule: torch's own schedulers and our curves, with each group's lr as its peak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, SchedulerFactory
from lightning_optim.schedule.catalog import SCHEDULES
from lightning_optim.schedule.curves import InverseSqrt, WarmupCosine, WarmupStableDecay
from tests.support.cases import every
from tests.support.messages import check_message
from tests.support.schedules import (
    CURVES,
    CURVES_WITH_LENGTH,
    CYCLIC_SCHEDULES,
    SEQUENCE,
    TORCH_SCHEDULES,
    WARMUP_SCHEDULES,
    lr_lambda,
    step_scheduler,
)

PEAKS = [0.4, 0.05]
NUM_STEPS = 30


def build_optimizer(cls: Any = torch.optim.SGD, peaks: list[float] = PEAKS) -> torch.optim.Optimizer:
    given = {"momentum": 0.9} if cls is torch.optim.SGD else {}
    return cls([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in peaks], **given)


def record(scheduler: Any, num_steps: int = NUM_STEPS) -> list[list[tuple[Any, Any]]]:
    """Each group's lr and momentum at each step."""
    found = []
    for t in range(num_steps):
        groups = scheduler.optimizer.param_groups
        found.append([(g["lr"], g.get("momentum", g.get("betas", (None,))[0])) for g in groups])
        scheduler.optimizer.step()
        step_scheduler(scheduler, t)
    return found


def record_lrs(scheduler: Any, num_steps: int = NUM_STEPS) -> list[list[Any]]:
    return [[lr for lr, _ in groups] for groups in record(scheduler, num_steps)]


def build_by_hand(name: str, optimizer: torch.optim.Optimizer, **given: Any) -> Any:
    cls, arguments = TORCH_SCHEDULES[name]
    return cls(optimizer, **{**arguments, **({"max_lr": list(PEAKS)} if name in CYCLIC_SCHEDULES else {}), **given})


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_torch_schedule_is_torch_s_class_with_the_same_lrs(name) -> None:
    cls, arguments = TORCH_SCHEDULES[name]
    scheduler = SchedulerFactory(name, **arguments)(build_optimizer())
    assert type(scheduler) is cls
    assert record(scheduler) == record(build_by_hand(name, build_optimizer()))


REQUIRED: dict[str, dict[str, Any]] = {
    "exponential": {"gamma": 0.9},
    "step": {"step_size": 4},
    "multi_step": {"milestones": [4]},
    "cosine_annealing": {"T_max": 20},
    "cosine_annealing_warm_restarts": {"T_0": 4},
    "cyclic": {"base_lr": 0.01},
    "one_cycle": {"total_steps": 30},
    "lambda": {"lr_lambda": lr_lambda},
    "multiplicative": {"lr_lambda": lr_lambda},
}


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_defaults_are_those_of_torch(name) -> None:
    cls, required = TORCH_SCHEDULES[name][0], REQUIRED.get(name, {})
    peaks = {"max_lr": list(PEAKS)} if name in CYCLIC_SCHEDULES else {}
    ours = SchedulerFactory(name, **required)(build_optimizer())
    assert record(ours) == record(cls(build_optimizer(), **required, **peaks))


@pytest.mark.parametrize("name", ["sequential", "chained"])
def test_blocks_are_built_as_torch_s_by_hand(name) -> None:
    milestones = {"milestones": [4, 9]} if name == "sequential" else {}
    blocks = [{"name": n, **TORCH_SCHEDULES[n][1]} for n in ("linear", "cosine_annealing", "exponential")]
    ours = SchedulerFactory(name, schedulers=blocks, **milestones)(build_optimizer())
    optimizer = build_optimizer()
    children = [build_by_hand(block["name"], optimizer) for block in blocks]
    if name == "sequential":
        theirs: Any = lr_scheduler.SequentialLR(optimizer, children, **milestones)
    else:
        theirs = lr_scheduler.ChainedScheduler(children, optimizer)
    assert type(ours) is type(theirs)
    assert record(ours) == record(theirs)


@pytest.mark.parametrize("name", CURVES)
def test_curve_is_a_factor_on_each_group_s_peak(name) -> None:
    given, curve = CURVES[name]
    total = {"total_steps": 25} if name in CURVES_WITH_LENGTH else {}
    scheduler = SchedulerFactory(name, warmup_steps=5, **total, **given)(build_optimizer())
    assert type(scheduler) is lr_scheduler.LambdaLR
    assert record_lrs(scheduler) == [[peak * curve(t) for peak in PEAKS] for t in range(NUM_STEPS)]


@pytest.mark.parametrize(
    ("name", "given", "curve"),
    [
        pytest.param("warmup_cosine", {}, WarmupCosine(0, 29, 0.0), id="warmup_cosine"),
        pytest.param("warmup_stable_decay", {}, WarmupStableDecay(0, 29, 2, "linear", 0.0), id="decay over a tenth"),
        pytest.param("inverse_sqrt", {}, InverseSqrt(0, 10_000), id="inverse_sqrt"),
        pytest.param("inverse_sqrt", {"warmup_steps": 6}, InverseSqrt(6, 6), id="inverse_sqrt with warmup"),
    ],
)
def test_defaults_of_our_curves(name, given, curve) -> None:
    scheduler = SchedulerFactory(name, **given)(build_optimizer(), 29)
    assert record_lrs(scheduler) == [[peak * curve(t) for peak in PEAKS] for t in range(NUM_STEPS)]


# A group's lr is its peak


@pytest.mark.parametrize("name", CYCLIC_SCHEDULES)
def test_each_group_rises_to_its_own_lr(name) -> None:
    arguments = {**TORCH_SCHEDULES[name][1], **({"mode": "triangular"} if name == "cyclic" else {})}
    lrs = record_lrs(SchedulerFactory(name, **arguments)(build_optimizer()))
    assert [max(column) for column in zip(*lrs, strict=True)] == PEAKS
    assert all(first < peak for first, peak in zip(lrs[0], PEAKS, strict=True))


@pytest.mark.parametrize("name", CYCLIC_SCHEDULES)
@pytest.mark.parametrize(
    ("cls", "cycled"),
    [(torch.optim.SGD, True), (torch.optim.AdamW, True), (torch.optim.RMSprop, True), (torch.optim.Adagrad, False)],
)
def test_momentum_is_cycled_if_the_optimizer_has_one(name, cls, cycled) -> None:
    scheduler = SchedulerFactory(name, **TORCH_SCHEDULES[name][1])(build_optimizer(cls))
    assert record(scheduler) == record(build_by_hand(name, build_optimizer(cls), cycle_momentum=cycled))
    momenta = {momentum for groups in record(scheduler, 1) for _, momentum in groups}
    assert (momenta == {None}) is not cycled


@pytest.mark.parametrize("name", CYCLIC_SCHEDULES)
def test_cycle_momentum_false_leaves_momentum_alone(name) -> None:
    found = record(SchedulerFactory(name, cycle_momentum=False, **TORCH_SCHEDULES[name][1])(build_optimizer()))
    assert {momentum for groups in found for _, momentum in groups} == {0.9}


@pytest.mark.parametrize("name", CYCLIC_SCHEDULES)
def test_cycle_momentum_true_is_refused_without_momentum(name) -> None:
    with pytest.raises(ConfigError, match=r"^cycle_momentum: Adagrad .* cycle_momentum: false"):
        SchedulerFactory(name, cycle_momentum=True, **TORCH_SCHEDULES[name][1])(build_optimizer(torch.optim.Adagrad))


# Warm-up


@pytest.mark.parametrize("name", WARMUP_SCHEDULES)
def test_warmup_is_torch_s_sequence_of_warmup_and_schedule(name) -> None:
    scheduler = SchedulerFactory(name, warmup_steps=4, **TORCH_SCHEDULES[name][1])(build_optimizer())
    optimizer = build_optimizer()
    warmup = lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 4))
    theirs = lr_scheduler.SequentialLR(optimizer, [warmup, build_by_hand(name, optimizer)], milestones=[4])
    assert record(scheduler) == record(theirs)


@pytest.mark.parametrize("name", [*WARMUP_SCHEDULES, "sequential"])
def test_schedule_starts_after_its_warmup(name) -> None:
    given = SEQUENCE if name == "sequential" else TORCH_SCHEDULES[name][1]
    lrs = record_lrs(SchedulerFactory(name, warmup_steps=4, **given)(build_optimizer()))
    assert lrs[:4] == [[peak * factor for peak in PEAKS] for factor in (0.25, 0.5, 0.75, 1.0)]
    assert lrs[4:] == record_lrs(SchedulerFactory(name, **given)(build_optimizer()))[:-4]


@pytest.mark.parametrize("index", [0, 1], ids=["first", "last"])
@pytest.mark.parametrize(
    "block",
    [{"name": "step", "step_size": 2, "warmup_steps": 3}, {"name": "sequential", **SEQUENCE}],
    ids=["warmup", "sequential"],
)
def test_sequence_may_be_a_block_of_a_sequence(block, index) -> None:
    alone = record_lrs(SchedulerFactory(**block)(build_optimizer()))
    other = {"name": "exponential", "gamma": 0.9}
    blocks = [block, other] if index == 0 else [other, block]
    lrs = record_lrs(SchedulerFactory("sequential", schedulers=blocks, milestones=[9])(build_optimizer()))
    assert (lrs[:9] if index == 0 else lrs[9:]) == (alone[:9] if index == 0 else alone[:-9])


def test_part_of_a_block_after_the_next_milestone_is_dropped() -> None:
    exponential = {"name": "exponential", "gamma": 0.9}
    inner_blocks = [exponential, {"name": "warmup_cosine"}]
    inner = {"name": "sequential", "schedulers": inner_blocks, "milestones": [6], "total_steps": 20}
    scheduler = SchedulerFactory("sequential", schedulers=[inner, {"name": "linear"}], milestones=[4])(
        build_optimizer()
    )
    assert [type(part) for part in scheduler._schedulers] == [lr_scheduler.ExponentialLR, lr_scheduler.LinearLR]


CHAINABLE = [name for name in TORCH_SCHEDULES if SCHEDULES[name].chainable and name != "cosine_annealing"]


@pytest.mark.parametrize("pair", every([f"{a} × {b}" for a in CHAINABLE for b in CHAINABLE],
                                       fast=[f"{name} × exponential" for name in CHAINABLE]))  # fmt: skip
def test_factors_of_chained_schedules_are_multiplied(pair) -> None:
    blocks = [{"name": name, **TORCH_SCHEDULES[name][1]} for name in pair.split(" × ")]
    chained = record_lrs(SchedulerFactory("chained", schedulers=blocks)(build_optimizer(peaks=[1.0])))
    alone = [record_lrs(SchedulerFactory(**block)(build_optimizer(peaks=[1.0]))) for block in blocks]
    # The products round differently: by a few units in the last place, over thirty steps.
    assert [lr for (lr,) in chained] == pytest.approx([a * b for (a,), (b,) in zip(*alone, strict=True)], rel=1e-13)


# The length of the run


BUILD_WITH_LENGTH = {
    "from the config": lambda name, **given: SchedulerFactory(name, total_steps=20, **given)(build_optimizer()),
    "from the call": lambda name, **given: SchedulerFactory(name, **given)(build_optimizer(), 20),
    "config before call": lambda name, **given: SchedulerFactory(name, total_steps=20, **given)(build_optimizer(), 50),
}


@pytest.mark.parametrize("build", BUILD_WITH_LENGTH.values(), ids=BUILD_WITH_LENGTH)
def test_length_comes_from_the_config_else_from_the_call(build) -> None:
    cosine = {"name": "cosine_annealing"}
    assert build("cosine_annealing").T_max == 20
    assert build("cosine_annealing", warmup_steps=5)._schedulers[1].T_max == 15
    assert build("one_cycle").total_steps == 20
    assert build("warmup_cosine").lr_lambdas[0] == WarmupCosine(0, 20, 0.0)
    assert build("chained", schedulers=[cosine])._schedulers[0].T_max == 20
    assert [s.T_max for s in build("sequential", schedulers=[cosine, cosine], milestones=[8])._schedulers] == [8, 12]


def test_milestones_give_the_length_of_the_blocks_before_them() -> None:
    blocks = [{"name": "warmup_linear"}, {"name": "cosine_annealing"}, {"name": "warmup_cosine", "warmup_steps": 2}]
    factory = SchedulerFactory("sequential", schedulers=blocks, milestones=[4, 10])
    first, second, third = factory(build_optimizer(), 30)._schedulers
    assert (first.lr_lambdas[0].total_steps, second.T_max, third.lr_lambdas[0].total_steps) == (4, 6, 20)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, {}) for name in ("cosine_annealing", "one_cycle", *CURVES_WITH_LENGTH)),
        ("sequential", {"schedulers": [{"name": "linear"}, {"name": "warmup_cosine"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "linear"}, {"name": "cosine_annealing"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_missing_length_is_refused_with_both_ways_to_give_it(name, given) -> None:
    factory = SchedulerFactory(name, **given)
    with pytest.raises(ConfigError) as caught:
        factory(build_optimizer())
    remedies = ["scheduler.total_steps: 1000", "lightning_optim.configure_optimizers"]
    check_message(caught, "scheduler.total_steps", name, *remedies)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("noam", {"warmup_steps": 3}),
        ("cosine_annealing", {"T_max": 5}),
        ("one_cycle", {"total_steps": 5}),
        ("sequential", {"schedulers": [{"name": "cosine_annealing"}, {"name": "linear"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "cosine_annealing", "T_max": 3}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schedule_with_a_length_of_its_own_is_built_without_one(name, given) -> None:
    optimizer = build_optimizer()
    assert SchedulerFactory(name, **given)(optimizer).optimizer is optimizer


BLOCK = {"name": "exponential", "gamma": 0.9}
WRONG_WITH_RUN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("cyclic", {"base_lr": 0.1}, ["base_lr", "0.1", "0.05", "base_lr: 0.005"]),
    ("warmup_cosine", {"warmup_steps": 20}, ["warmup_steps", "20 steps"]),
    ("warmup_stable_decay", {"warmup_steps": 12, "decay_steps": 9}, ["decay_steps", "12", "9", "20"]),
    ("one_cycle", {"pct_start": 0.05}, ["pct_start", "one step", "pct_start: 0"]),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "warmup_cosine"}], "milestones": [20]},
        ["milestones", "20 steps"],
    ),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "warmup_cosine", "warmup_steps": 9}], "milestones": [15]},
        ["schedulers[1].warmup_steps", "9", "5 steps"],
    ),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG_WITH_RUN, ids=[said[0] for *_, said in WRONG_WITH_RUN])
def test_config_that_does_not_fit_the_run_is_refused_when_the_factory_is_called(name, given, said) -> None:
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(name, **given)(build_optimizer(), 20)
    check_message(caught, *said)
