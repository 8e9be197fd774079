"""Loading by name in the middle of staged unfreezing: before a thaw, in its warm-up and after it."""

from __future__ import annotations

import copy

import pytest

from lightning_optim import SchedulerFactory
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.cases import each_value
from tests.support.equality import equal
from tests.support.loading_runs import NEW_GROUPS, SCHEDULED, build, states_by_name, step, values_by_name
from tests.support.models import Deep, weights_of
from tests.support.save_and_load import save_and_load
from tests.support.schedules import SCHEDULE_CONFIGS

COMPOSITE = "muon + adamw"
THAW_STEP = 3
STAGES = {
    "head": {"params": ["head", "backbone.4"]},
    "backbone": {"params": "backbone", "at": {"step": THAW_STEP}, "lr_scale": 0.25, "warmup_steps": 6},
}
SAVED_AT = {"before the thaw": 2, "in the warm-up": 5, "after the warm-up": 11}
SCHEDULES = ["warmup_cosine", "one_cycle", "exponential", "cyclic", "reduce_on_plateau"]


class StagedRun:
    """A run whose second stage thaws at `THAW_STEP`; its checkpoint has the states of four parts."""

    def __init__(self, config, change, schedule, num_steps):
        self.model = Deep()
        self.optimizer = build(config, change, self.model)
        self.scheduler = SchedulerFactory(**SCHEDULE_CONFIGS[schedule])(self.optimizer, 60)
        stages = claim(parse_stages(STAGES), self.model)
        self.staged = StagedOptimizer(self.optimizer, self.model, stages, [self.scheduler])
        self.staged.activate_stages(["head"] if num_steps <= THAW_STEP else ["head", "backbone"])
        self.optimizer.register_step_pre_hook(self.staged.before_step)
        self.optimizer.register_step_post_hook(self.staged.after_step)
        self.parts = (self.model, self.optimizer, self.scheduler, self.staged)

    def run(self, first, last):
        """The weights after each step."""
        weights = []
        for t in range(first, last):
            if t == THAW_STEP:
                self.staged.thaw("backbone")
            self.staged.sync()
            step(self.model, self.optimizer, self.scheduler, t)
            weights.append(weights_of(self.model))
        return weights

    def save(self):
        return save_and_load([part.state_dict() for part in self.parts])

    def load(self, saved):
        for part, state in zip(self.parts, saved, strict=True):
            part.load_state_dict(copy.deepcopy(state))

    def states(self):
        return states_by_name(self.model, self.optimizer)

    def values(self):
        return values_by_name(self.model, self.optimizer, *SCHEDULED, "weight_decay", "peak_lr")


SAME_VALUES_CASES = [
    (config, schedule, saved_at)
    for config in ("own nadamw", COMPOSITE)
    for schedule in SCHEDULES
    for saved_at in SAVED_AT
]


@pytest.mark.parametrize(
    ("config", "schedule", "saved_at"),
    each_value(
        SAME_VALUES_CASES,
        fast=[
            f"{COMPOSITE}-warmup_cosine-before the thaw",
            f"{COMPOSITE}-one_cycle-in the warm-up",
            "own nadamw-cyclic-after the warm-up",
        ],
        id="-".join,
    ),
)
def test_training_continues_bitwise_where_no_value_changes(config, schedule, saved_at):
    t = SAVED_AT[saved_at]
    first = StagedRun(config, "same", schedule, 0)
    first.run(0, t)
    saved, states = first.save(), first.states()
    first.staged.sync()  # as the callback does before it saves
    values = first.values() if t > THAW_STEP else None
    expected = first.run(t, 16)
    for change in NEW_GROUPS:
        resumed = StagedRun(config, change, schedule, t)
        resumed.load(saved)
        assert equal(resumed.states(), states), change
        assert values is None or resumed.values() == values, change
        assert [equal(*pair) for pair in zip(resumed.run(t, 16), expected, strict=True)] == [True] * (16 - t), change


OTHER_RULES_CASES = [
    (config, change, saved_at)
    for config in ("torch adamw", COMPOSITE)
    for change in ("added", "merged", "other rules")
    for saved_at in SAVED_AT
]


@pytest.mark.parametrize(
    ("config", "change", "saved_at"),
    each_value(
        OTHER_RULES_CASES,
        fast=[
            f"{COMPOSITE}-added-before the thaw",
            f"{COMPOSITE}-merged-in the warm-up",
            "torch adamw-other rules-after the warm-up",
        ],
        id="-".join,
    ),
)
def test_each_parameter_gets_its_own_state_under_other_rules(config, change, saved_at):
    t = SAVED_AT[saved_at]
    first = StagedRun(config, "same", "warmup_cosine", 0)
    first.run(0, t)
    resumed = StagedRun(config, change, "warmup_cosine", t)
    resumed.load(first.save())
    assert equal(resumed.states(), first.states())
    resumed.run(t, 14)
