"""Read a saved scheduler state, and advance a new scheduler to the step at which another was saved."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import SCHEDULE
from .optimizer_marks import mark_moved_groups, moved_groups
from .param_group_values import set_value

# Their lr and momentum depend on `last_epoch` alone, and not on the values before.
_CLOSED_FORM = (CyclicLR, LambdaLR, OneCycleLR)


def saved_curves(state_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The states of the curves in a saved scheduler state; a scheduler with one curve for all groups has one.

    Returns:
        For each curve the `schedule` override and the momentum key of its groups, and the `state` of its scheduler.
    """
    found: list[dict[str, Any]] = state_dict.get(
        "curves", [{SCHEDULE: None, "momentum": None, "state": dict(state_dict)}]
    )
    return found


def num_steps(state: Mapping[str, Any]) -> int:
    """The number of steps a saved scheduler has taken; torch's ChainedScheduler keeps it only in its parts."""
    if "curves" in state:
        return max(num_steps(curve["state"]) for curve in state["curves"])
    if "last_epoch" in state:
        return int(state["last_epoch"])
    return max(num_steps(inner) for inner in state["_schedulers"])


def advance(scheduler: LRScheduler, steps: int, names: Sequence[str]) -> None:
    """Advance a new scheduler to the step of a resumed run.

    Args:
        scheduler: a new one, at its first step.
        steps: how many steps to take.
        names: the groups that changed curve since the checkpoint; afterwards they are no longer marked as moved.

    Raises:
        ConfigError: the scheduler is ReduceLROnPlateau, whose lr depends on metrics and not on the number of steps.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f"scheduler: {format_names(names, 3)} had another schedule in the checkpoint, and the lr that "
            "reduce_on_plateau would have given them is not known. Use the schedule the checkpoint was saved with"
        )
    for group, lr in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
        set_value(group, "lr", lr)  # the loaded optimizer has the lr of the other curve
    take_steps(scheduler, steps)
    mark_moved_groups(scheduler.optimizer, moved_groups(scheduler.optimizer) - set(names))


def take_steps(scheduler: LRScheduler, steps: int) -> None:
    """Bring a new scheduler to where it is after this many steps, bitwise.

    Args:
        scheduler: one whose lr is a function of its steps, and not of metrics.
        steps: how many; a schedule in closed form takes the last one only, from wherever it is.

    Raises:
        ConfigError: the schedule ends before.
    """
    if steps and isinstance(scheduler, _CLOSED_FORM):
        scheduler.last_epoch = steps - 1
        scheduler._step_count = steps
        steps = 1
    with warnings.catch_warnings():
        # torch warns unless the optimizer was stepped first; its steps were taken before the checkpoint.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        try:
            for _ in range(steps):
                scheduler.step()
        except ValueError as error:  # from OneCycleLR, past its end
            raise ConfigError(
                f"total_steps: the run is past the end of the schedule: {error}. Type a larger total_steps, or "
                "scheduler.on_resume: restart"
            ) from error
