"""Schedules by group under stages: a group that thaws late is on its curve, and every resume is bitwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_optim import SchedulerFactory
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.cases import every
from tests.support.save_and_load import save_and_load
from tests.support.scheduled_groups import (
    ONE_WITHOUT_MOMENTUM,
    SGD,
    WITH_MOMENTUM,
    build_factory,
    build_net,
    momentum_of,
    set_gradients,
)
from tests.support.schedules import step_scheduler

STEPS, THAW = 20, 7
STAGES = {
    "head": {"params": "head", "allow_unused": True},
    "backbone": {"params": ["stem", "neck"], "at": {"step": THAW}, "lr_scale": 0.25, "warmup_steps": 4},
}
COSINE = {"name": "warmup_cosine", "warmup_steps": 4}
# By name: the algorithms, the run's schedule, the overrides by part.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cosine": (WITH_MOMENTUM, COSINE, {}),
    "one_cycle": (WITH_MOMENTUM, {"name": "one_cycle"}, {}),
    "cosine, one group constant": (WITH_MOMENTUM, COSINE, {"neck": "constant"}),
    "cyclic, one group with a longer warm-up": (
        WITH_MOMENTUM,
        {"name": "cyclic", "base_lr": 0.01, "step_size_up": 5},
        {"stem": {"name": "warmup_cosine", "warmup_steps": 9}},
    ),
    "cosine, two groups overridden": (
        SGD,
        COSINE,
        {"head": {"warmup_steps": 9}, "stem": {"name": "exponential", "gamma": 0.9}},
    ),
    "plateau, one group constant": (
        ONE_WITHOUT_MOMENTUM,
        {"name": "reduce_on_plateau", "patience": 2},
        {"neck": "constant"},
    ),
    "warm restarts after a warm-up": (
        ONE_WITHOUT_MOMENTUM,
        {"name": "cosine_annealing_warm_restarts", "T_0": 5, "warmup_steps": 3},
        {"neck": {"warmup_steps": 6}},
    ),
}
FAST = ["cosine, two groups overridden"]


class StagedRun:
    """An optimizer under stages, and all that its checkpoint holds."""

    def __init__(self, case: str, live: list[str]) -> None:
        algorithms, config, overrides = CASES[case]
        self.model = build_net()
        self.optimizer = build_factory(algorithms, **overrides)(self.model)
        self.scheduler = SchedulerFactory(**config)(self.optimizer, STEPS)
        stages = claim(parse_stages(STAGES), self.model)
        self.staged = StagedOptimizer(self.optimizer, self.model, stages, [self.scheduler])
        self.staged.activate_stages(live)
        self.optimizer.register_step_pre_hook(self.staged.before_step)
        self.optimizer.register_step_post_hook(self.staged.after_step)
        self.parts = (self.model, self.optimizer, self.scheduler, self.staged)

    def step(self, t: int) -> dict[str, Any]:
        """One step; returns the lr and momentum of each live group in it."""
        if t == THAW:
            self.staged.thaw("backbone")
        self.staged.sync()
        values = {group["name"]: (group["lr"], momentum_of(group)) for group in self.optimizer.param_groups}
        set_gradients(self.model.parameters(), t)
        self.optimizer.step()
        step_scheduler(self.scheduler, t)
        return values


@pytest.mark.parametrize("case", every(CASES, fast=FAST))
def test_late_group_is_on_its_curve_and_early_groups_are_unchanged(case) -> None:
    algorithms, config, overrides = CASES[case]
    run = StagedRun(case, ["head"])
    model = build_net()
    optimizer = build_factory(algorithms, **overrides)(model)
    scheduler = SchedulerFactory(**config)(optimizer, STEPS)
    for t in range(STEPS):
        parents = {group["name"]: group for group in optimizer.param_groups}
        factor = 0.25 * min(1.0, (t - THAW + 1) / 4)
        values = run.step(t)
        assert list(values) == (["head"] if t < THAW else ["head", "backbone.stem", "backbone.neck"])
        for name, (lr, momentum) in values.items():
            parent = parents[name.rpartition(".")[2]]
            assert lr == (parent["lr"] if name == "head" else parent["lr"] * factor), (t, name)
            assert momentum == momentum_of(parent), (t, name)
        set_gradients(model.parameters(), t)
        optimizer.step()
        step_scheduler(scheduler, t)
    assert torch.equal(run.model["head"].weight, model["head"].weight)


@pytest.mark.parametrize("case", every(CASES, fast=FAST))
def test_run_under_stages_resumes_bitwise_from_every_step(case) -> None:
    run = StagedRun(case, ["head"])
    checkpoints, values = [], []
    for t in range(STEPS):
        checkpoints.append(save_and_load([part.state_dict() for part in run.parts]))
        values.append(run.step(t))
    for t, states in enumerate(checkpoints):
        resumed = StagedRun(case, ["head"] if t <= THAW else ["head", "backbone"])
        for part, state in zip(resumed.parts, states, strict=True):
            part.load_state_dict(state)
        assert [resumed.step(step) for step in range(t, STEPS)] == values[t:], t
        assert all(map(torch.equal, run.model.parameters(), resumed.model.parameters())), t


@pytest.mark.parametrize("t", [THAW - 2, THAW + 2, THAW + 6], ids=["before the thaw", "in the warm-up", "after it"])
def test_group_whose_override_was_removed_resumes_on_the_run_s_curve(t) -> None:
    interrupted, expected = StagedRun("cosine, one group constant", ["head"]), StagedRun("cosine", ["head"])
    for step in range(t):
        interrupted.step(step)
        expected.step(step)
    resumed = StagedRun("cosine", ["head"] if t <= THAW else ["head", "backbone"])
    # In Lightning's order: callbacks, optimizers, schedulers.
    for part in ("model", "staged", "optimizer", "scheduler"):
        getattr(resumed, part).load_state_dict(save_and_load(getattr(interrupted, part).state_dict()))
    resumed.staged.sync(reset=True)
    assert [resumed.step(step) for step in range(t, STEPS)] == [expected.step(step) for step in range(t, STEPS)]
