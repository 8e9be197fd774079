"""A scheduler and its groups as they were when they were built, and how to get from there to any step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError, format_names
from .by_group import SchedulerByGroup
from .optimizer_marks import mark_moved_groups
from .param_group_values import SCHEDULER_KEYS, WEIGHT_DECAY, copy_value, momentum_keys, set_value
from .scheduler_state import take_steps

GroupValues = list[dict[str, Any]]


def read_group_values(scheduler: LRScheduler) -> GroupValues:
    """By group: lr, momentum or betas, weight decay, and the keys that schedulers add."""
    return [
        {
            key: copy_value(group[key])
            for key in ("lr", *momentum_keys(group), WEIGHT_DECAY, *SCHEDULER_KEYS)
            if key in group
        }
        for group in scheduler.optimizer.param_groups
    ]


def write_group_values(scheduler: LRScheduler, values: GroupValues, *, momentum: bool, weight_decay: bool) -> None:
    """Set the groups to values that `read_group_values` has read.

    Args:
        scheduler: whose groups are set.
        values: by group.
        momentum: whether to set momentum and betas too.
        weight_decay: whether to set weight decay too.
    """
    for group, own in zip(scheduler.optimizer.param_groups, values, strict=False):  # others joined since
        for key in SCHEDULER_KEYS:
            if key not in own:
                group.pop(key, None)
        for key, value in own.items():
            if key == WEIGHT_DECAY and not weight_decay:
                continue
            if momentum or key not in momentum_keys(group):
                set_value(group, key, copy_value(value))


class Beginning:
    """The state of a new scheduler and the values of its groups.

    Args:
        scheduler: a new one; loading changes it, and `restore` undoes that.
        state: its state dict.
    """

    def __init__(self, scheduler: LRScheduler, state: dict[str, Any]) -> None:
        self._state = copy.deepcopy(state)
        self._values = read_group_values(scheduler)

    def restore(
        self,
        scheduler: LRScheduler,
        load: Callable[[dict[str, Any]], None],
        *,
        steps: int,
        momentum: bool,
        weight_decay: bool,
    ) -> None:
        """Set the scheduler and its groups to what they are after this many steps of an uninterrupted run.

        Args:
            scheduler: the one that was new.
            load: its `load_state_dict`.
            steps: how many of its steps.
            momentum: whether momentum and betas are set too; one that no schedule changes stays as it is.
            weight_decay: whether weight decay is set too, likewise.

        Raises:
            ConfigError: the schedule ends before; or groups have joined since the beginning.
        """
        joined = scheduler.optimizer.param_groups[len(self._values) :]
        if joined:
            names = format_names(str(group.get("name", "?")) for group in joined)
            raise ConfigError(
                f"scheduler.on_resume: param groups {names} joined after the scheduler was built, and where another "
                "schedule would have begun for them is not known. Type scheduler.on_resume: continue, with the "
                "schedule of the checkpoint, or build the optimizer over all groups and unfreeze with StagedUnfreeze"
            )
        mark_moved_groups(scheduler.optimizer, ())
        load(copy.deepcopy(self._state))
        write_group_values(scheduler, self._values, momentum=momentum, weight_decay=weight_decay)
        # Each curve of a `SchedulerByGroup` may take its steps in another way.
        for curve in scheduler.curves if isinstance(scheduler, SchedulerByGroup) else [scheduler]:
            take_steps(curve, steps)
        if isinstance(scheduler, SchedulerByGroup):
            scheduler.apply_values()
