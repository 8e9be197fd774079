"""Every pair of a saved schedule and a config's schedule, under every `on_resume` and interval: exact or refused."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from typing import Any

import pytest

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.models import Tiny
from tests.support.save_and_load import save_and_load
from tests.support.scheduled_groups import momentum_of
from tests.support.schedules import SCHEDULE_CONFIGS, step_scheduler

DONE = {"step": 8, "epoch": 3}
"""Where the saved run is; the interval of its schedule says how many steps the schedule has taken."""
NUM_STEPS = 12
INTERVALS = ("step", "epoch")
KINDS = ("exponential", "one_cycle", "reduce_on_plateau", "warmup+step", "warmup_linear", "warmup_cosine")
"""One schedule of each kind: recursive, cyclic, by metric, in sequence, and two curves of ours with equal arguments."""


def build(name: str, interval: str, **given: Any) -> tuple[Any, Any]:
    factory = SchedulerFactory(**{**SCHEDULE_CONFIGS[name], "interval": interval, **given})
    groups = {"head": {"params": "head", "lr_scale": 0.5, "momentum": 0.8}}
    optimizer = OptimizerFactory("sgd", lr=0.4, momentum=0.9, groups=groups)(Tiny())
    return optimizer, factory(optimizer, position=DONE.__getitem__)


def record(optimizer: Any, scheduler: Any, first: int, last: int) -> list[Any]:
    values = []
    for t in range(first, last):
        values.append([(group["lr"], momentum_of(group)) for group in optimizer.param_groups])
        optimizer.step()
        step_scheduler(scheduler, t)
    return values


@cache
def curve_from_the_start(name: str, interval: str) -> list[Any]:
    """A naive reference: a new scheduler, stepped."""
    return record(*build(name, interval), 0, max(DONE.values()) + NUM_STEPS)


@cache
def saved_states(name: str, interval: str) -> tuple[Any, Any]:
    optimizer, scheduler = build(name, interval)
    record(optimizer, scheduler, 0, DONE[interval])
    return save_and_load((optimizer.state_dict(), scheduler.state_dict()))


def resume(saved: tuple[str, str], own: tuple[str, str], on_resume: str) -> str:
    """`exact` or `refused`; an AssertionError where the resumed run is neither."""
    optimizer, scheduler = build(*own, on_resume=on_resume)
    try:
        for part, state in zip((optimizer, scheduler), copy.deepcopy(saved_states(*saved)), strict=True):
            part.load_state_dict(state)
    except ConfigError as error:
        names_the_way_out = str(error).startswith("scheduler") and "scheduler.on_resume: restart" in str(error)
        return "refused" if names_the_way_out else f"refused without a way out: {error}"
    start = 0 if on_resume == "restart" else DONE[own[1]]
    expected = curve_from_the_start(*own)[start : start + NUM_STEPS]
    assert record(optimizer, scheduler, start, start + NUM_STEPS) == expected
    later_optimizer, later_scheduler = build(*own)  # `continue`: what is saved later resumes as it was
    later_optimizer.load_state_dict(optimizer.state_dict())
    later_scheduler.load_state_dict(scheduler.state_dict())
    groups = [group["lr"] for group in later_optimizer.param_groups]
    assert groups == [group["lr"] for group in optimizer.param_groups]
    return "exact"


def expected_outcome(saved: tuple[str, str], own: tuple[str, str], on_resume: str) -> str:
    if saved == own or on_resume == "restart":
        return "exact"
    # The lr of reduce_on_plateau depends on metrics that no checkpoint has.
    return "refused" if on_resume == "continue" or own[0] == "reduce_on_plateau" else "exact"


@pytest.mark.parametrize(
    ("names", "intervals"),
    [
        pytest.param(KINDS, ("step",), id="kinds by step"),
        pytest.param(("exponential", "warmup_cosine"), INTERVALS, id="intervals"),
        pytest.param(tuple(SCHEDULE_CONFIGS), ("step",), id="all by step", marks=pytest.mark.slow),
        # The interval only says where the run is; no schedule knows its own.
        pytest.param(KINDS, INTERVALS, id="kinds in all intervals", marks=pytest.mark.slow),
    ],
)
def test_every_pair_of_schedules_resumes_exactly_or_is_refused(names: Any, intervals: Any) -> None:
    ends = [(name, interval) for name in names for interval in intervals]
    cells = [(saved, own, how) for saved in ends for own in ends for how in ("continue", "extend", "restart")]
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong = {}
    for cell in cells:
        try:
            outcome = resume(*cell)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        outcomes[cell[2], outcome if outcome in ("exact", "refused") else "wrong"] += 1
        if outcome != expected_outcome(*cell):
            wrong[cell] = outcome
    print(dict(outcomes))
    assert wrong == {}
