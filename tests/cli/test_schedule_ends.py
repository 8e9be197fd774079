"""The steps at which warm-ups and schedules end are those at which the simulated lr turns and stops changing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory
from lightning_optim.cli.run_length import RunLength
from lightning_optim.cli.schedule_ends import ScheduleEnd, find_ends
from lightning_optim.cli.simulate import simulate

SGD = OptimizerFactory("sgd", lr=1.0)
LENGTH = RunLength(max_epochs=8, steps_per_epoch=5)
TOTAL = 40

# By name: the schedule, the end of its warm-up and its end.
SCHEDULES: dict[str, tuple[dict[str, Any], int | None, int | None]] = {
    "length of the run": ({"name": "warmup_cosine", "warmup_steps": 4}, 4, TOTAL),
    "its own length": ({"name": "cosine_annealing", "warmup_steps": 4, "total_steps": 20}, 4, 20),
    "length argument": ({"name": "cosine_annealing", "T_max": 10, "warmup_steps": 4}, 4, 14),
    "total_iters": ({"name": "linear", "total_iters": 7, "warmup_steps": 2}, 2, 9),
    "milestones": ({"name": "multi_step", "milestones": [3, 11], "gamma": 0.5}, None, 11),
    "warm-up as a fraction": ({"name": "warmup_linear", "warmup_fraction": 0.25, "total_steps": 20}, 5, 20),
    "warm-up in epochs": ({"name": "warmup_linear", "warmup_epochs": 1.2}, 6, TOTAL),
    "by epoch": ({"name": "linear", "total_iters": 2, "warmup_steps": 1, "interval": "epoch"}, 5, 15),
    "blocks": (
        {
            "name": "sequential",
            "schedulers": [{"name": "step", "step_size": 2}, {"name": "linear", "total_iters": 6}],
            "milestones": [5],
        },
        None,
        11,
    ),
    "chained": (
        {
            "name": "chained",
            "schedulers": [{"name": "linear", "total_iters": 6}, {"name": "multi_step", "milestones": [9]}],
        },
        None,
        9,
    ),
    "no end": ({"name": "exponential", "gamma": 0.9, "warmup_steps": 3}, 3, None),
    "a block without an end": (
        {"name": "chained", "schedulers": [{"name": "linear"}, {"name": "exponential", "gamma": 0.9}]},
        None,
        None,
    ),
    "a last block without an end": (
        {
            "name": "sequential",
            "schedulers": [{"name": "linear"}, {"name": "exponential", "gamma": 0.9}],
            "milestones": [5],
        },
        None,
        None,
    ),
}


@pytest.mark.parametrize(("given", "warmup", "end"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_ends_where_its_curve_does(given, warmup, end) -> None:
    module = nn.Linear(2, 1)
    scheduler = SchedulerFactory(**given)
    (found,) = find_ends(SGD(module), scheduler, LENGTH)
    assert found == ScheduleEnd(groups=("default",), schedule=given["name"], warmup_ends=warmup, ends=end)
    lr = simulate(module, SGD, scheduler, length=LENGTH).curves[0].lr
    changes = np.flatnonzero(np.diff(lr)) + 1  # the steps whose lr is not that of the step before
    if warmup is not None:
        assert (np.diff(lr[:warmup]) >= 0).all() and lr[warmup - 1] == 1.0, "rises to the peak"
    if given["name"] == "cosine_annealing":
        assert lr.argmin() == end, "then it rises again"
    else:
        # Of a curve that ends with the run, the value at the end is not seen any more.
        assert changes[-1] == (TOTAL - 1 if end in (None, TOTAL) else end)


def test_a_rules_schedule_has_a_row_of_its_own() -> None:
    module = nn.Linear(2, 1)
    groups = {"b": {"params": "bias", "schedule": {"warmup_steps": 3}}}
    optimizer = OptimizerFactory("sgd", lr=1.0, groups=groups)(module)
    found = list(find_ends(optimizer, SchedulerFactory("warmup_cosine", warmup_steps=1), LENGTH))
    assert [(it.groups, it.warmup_ends) for it in found] == [(("default",), 1), (("b",), 3)]


def test_where_every_lr_is_constant_nothing_ends() -> None:
    assert list(find_ends(SGD(nn.Linear(2, 1)), None, LENGTH)) == []
