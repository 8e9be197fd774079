"""Loading a scheduler's state by group name, where groups have changed their curve or have no name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from lightning_optim.schedule.optimizer_marks import moved_groups
from tests.support.save_and_load import save_and_load
from tests.support.scheduled_groups import (
    PEAKS,
    SGD,
    STEPS,
    WITH_MOMENTUM,
    build_factory,
    build_net,
    lrs_of,
    record_curves,
)

COSINE: dict[str, Any] = {"name": "warmup_cosine", "warmup_steps": 4}
EXPONENTIAL: dict[str, Any] = {"name": "exponential", "gamma": 0.75}
SAVED_AT = 7
ALL_OVERRIDDEN = {name: {"name": "exponential", "gamma": 0.5} for name in PEAKS}


def save(config: dict[str, Any], algorithms: str = SGD, **overrides: Any) -> Any:
    """The states of an optimizer and its scheduler after some steps."""
    optimizer = build_factory(algorithms, **overrides)(build_net())
    scheduler = SchedulerFactory(**config)(optimizer, STEPS)
    record_curves(optimizer, scheduler, last=SAVED_AT)
    return save_and_load([optimizer.state_dict(), scheduler.state_dict()])


def resume(saved: Any, config: dict[str, Any], algorithms: str = SGD, **overrides: Any) -> tuple[Any, Any]:
    """A new optimizer and its scheduler with saved states."""
    optimizer = build_factory(algorithms, **overrides)(build_net())
    scheduler = SchedulerFactory(**config)(optimizer, STEPS)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    return optimizer, scheduler


def check_on_curve(config: dict[str, Any], resumed: tuple[Any, Any], algorithms: str = SGD, **overrides: Any) -> None:
    """Check that a resumed run continues as one that had the new curves from the start."""
    assert moved_groups(resumed[0]) == frozenset(), "every moved group has been advanced"
    optimizer = build_factory(algorithms, **overrides)(build_net())
    uninterrupted = record_curves(optimizer, SchedulerFactory(**config)(optimizer, STEPS))
    assert record_curves(*resumed, SAVED_AT) == uninterrupted[SAVED_AT:]


@pytest.mark.parametrize("config", [COSINE, EXPONENTIAL], ids=lambda config: config["name"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(ALL_OVERRIDDEN, {}), ({}, ALL_OVERRIDDEN), (ALL_OVERRIDDEN, {"neck": "constant"})],
    ids=["all overrides removed", "overrides added to all", "one override replaced"],
)
def test_group_on_a_new_curve_is_advanced_to_the_saved_step(config, before, after) -> None:
    check_on_curve(config, resume(save(config, **before), config, **after), **after)


@pytest.mark.parametrize("config", [COSINE, {"name": "one_cycle"}], ids=lambda config: config["name"])
def test_group_may_move_to_a_curve_that_was_saved_for_other_groups(config) -> None:
    """Under one_cycle, the curve of the checkpoint is split in two: one for `momentum`, one for `betas`."""
    before, after = {"neck": "constant", "head": "constant"}, {"head": "constant"}
    resumed = resume(save(config, WITH_MOMENTUM, **before), config, WITH_MOMENTUM, **after)
    check_on_curve(config, resumed, WITH_MOMENTUM, **after)


def test_curves_split_by_momentum_are_loaded_from_the_one_that_was_saved() -> None:
    config = {"name": "one_cycle", "total_steps": 60}
    saved = save(config, WITH_MOMENTUM, neck="constant", head="constant")
    _, scheduler = resume(saved, config, WITH_MOMENTUM, head="constant")
    assert [(view.override, view.momentum) for view in scheduler._views[:2]] == [(None, "momentum"), (None, "betas")]
    assert [curve.total_steps for curve in scheduler._schedulers[:2]] == [60, 60]


def test_edited_lr_is_the_new_peak_and_new_groups_have_their_own_lr() -> None:
    rules: dict[str, Any] = {part: {"params": part, "lr": lr} for part, lr in PEAKS.items()}
    saved = save(COSINE)
    # `neck` and `head` become one group with a new name; `stem` has another lr, and is now the last group.
    edited = {"top": {"params": ["neck", "head"], "lr": 0.2}, "stem": {**rules["stem"], "lr": 0.8}}

    def build() -> tuple[Any, Any]:
        pairs = list(build_net().named_parameters())
        optimizer = OptimizerFactory("sgd", momentum=0.9, groups=edited)(pairs[::-1])
        return optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS)

    optimizer, scheduler = build()
    assert [group["name"] for group in optimizer.param_groups] == ["top", "stem"]
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert scheduler.get_last_lr()[0] == optimizer.param_groups[0]["lr"], "that of the new group"
    resumed, expected = record_curves(optimizer, scheduler, SAVED_AT), record_curves(*build())[SAVED_AT:]
    for name in ("top", "stem"):
        # At the saved step the lr is the saved fraction of the new peak, which is rounded once more.
        assert lrs_of(resumed, name)[0] == pytest.approx(lrs_of(expected, name)[0], rel=1e-15)
        assert lrs_of(resumed, name)[1:] == lrs_of(expected, name)[1:]


def test_number_of_steps_is_read_from_a_chained_schedule() -> None:
    """torch's ChainedScheduler does not count its steps."""
    chained = {"name": "chained", "schedulers": [{"name": "exponential", "gamma": 0.9}, {"name": "constant"}]}
    resumed = resume(save(chained), chained, neck={"name": "linear"})
    check_on_curve(chained, resumed, neck={"name": "linear"})
    assert resumed[1].last_epoch == STEPS


@pytest.mark.parametrize(
    ("before", "after"),
    [({"neck": "constant"}, {}), ({}, {"neck": {"patience": 1}})],
    ids=["override removed", "override added"],
)
def test_group_that_moves_to_reduce_on_plateau_is_refused(before, after) -> None:
    plateau = {"name": "reduce_on_plateau", "patience": 2}
    saved = save(plateau, **before)
    with pytest.raises(ConfigError, match=r"^scheduler: neck had another schedule in the checkpoint.*saved with"):
        resume(saved, plateau, **after)


def test_state_of_another_schedule_class_is_refused() -> None:
    """In a checkpoint of an older version, which does not record the schedule."""
    saved = save(COSINE)
    del saved[1]["schedule"]
    with pytest.raises(ConfigError, match=r"^scheduler: the checkpoint has a LambdaLR, this run a ExponentialLR"):
        resume(saved, EXPONENTIAL)


def test_state_without_names_and_with_another_number_of_groups_is_refused() -> None:
    optimizer_state, scheduler_state = save(EXPONENTIAL)
    del scheduler_state["group_names"]
    scheduler_state["base_lrs"].pop()
    with pytest.raises(ConfigError, match=r"a base_lrs of 2 param groups without names; this run has 3: stem, neck"):
        resume((optimizer_state, scheduler_state), EXPONENTIAL)


def test_group_that_a_user_adds_without_a_name_is_named_by_its_position() -> None:
    optimizer = build_factory(SGD)(build_net())
    scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
    optimizer.add_param_group({"params": [("late.weight", nn.Parameter(torch.ones(3)))], "lr": 0.5})
    assert scheduler.state_dict()["group_names"] == [*PEAKS, "group3"]
