"""Schedulers that save their per-group lists with the groups' names, and load them by name under an edited config.

torch's schedulers keep lists with one entry per group, by position. If a rule was added, renamed or split, a
checkpoint's lists would have another length, or give a group the values of its neighbour.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import SCHEDULE
from .by_group import SchedulerByGroup
from .optimizer_marks import moved_groups
from .param_group_values import copy_group, copy_value, momentum_keys, set_value
from .saved_schedule import BY_GROUP, PEAKS, check_class_name, check_curves, check_group_names, check_scheduler_state
from .scheduler_state import advance, num_steps, saved_curves, take_steps

RESUME = "_resume"
"""The attribute of a scheduler that says how it resumes, see `resume`."""
INSTANCE_ATTRIBUTES = ("state_dict", "load_state_dict", RESUME)
"""What this package sets on the instance; torch would save it with every other attribute."""

_GROUP_NAMES = "group_names"
_CLASS = "class"


def torch_state(scheduler: LRScheduler) -> dict[str, Any]:
    """The state that torch's class saves, without what this package sets on the instance."""
    state = type(scheduler).state_dict(scheduler)
    return {key: value for key, value in state.items() if key not in INSTANCE_ATTRIBUTES}


def save_by_name(scheduler: LRScheduler) -> LRScheduler:
    """Make a scheduler, and those inside it, save and load their lists by group name; returns it.

    The class stays torch's own: the two methods are set on the instance.

    Args:
        scheduler: of an optimizer whose groups have names.
    """
    for inner in getattr(scheduler, "_schedulers", ()):
        save_by_name(inner)
    if not isinstance(scheduler, SchedulerByGroup):  # it has no lists, only its curves do
        for method in (state_dict, load_state_dict):
            setattr(scheduler, method.__name__, MethodType(method, scheduler))
    return scheduler


# Methods for an instance. A bound method is pickled by its function's name, so they have the names of torch's.


def state_dict(self: LRScheduler) -> dict[str, Any]:
    """The state of torch's class, with the class name and the names of the groups."""
    return {**torch_state(self), _CLASS: type(self).__name__, _GROUP_NAMES: _group_names(self)}


def load_state_dict(self: LRScheduler, state_dict: Mapping[str, Any]) -> None:
    """Load each group's entries by the group's name; a new group keeps the config's.

    Raises:
        ConfigError: the state is of another scheduler class; or it has no names and another number of groups.
    """
    curves = saved_curves(state_dict)
    check_curves(curves)
    without_override = [curve["state"] for curve in curves if curve[SCHEDULE] is None]
    if not without_override:  # every saved group had a schedule of its own
        return advance(self, max(num_steps(curve["state"]) for curve in curves), _group_names(self))
    state = dict(without_override[0])
    saved_class = state.pop(_CLASS, type(self).__name__)
    check_class_name(saved_class)
    if saved_class != type(self).__name__:
        raise ConfigError(
            f"scheduler: the checkpoint has a {saved_class}, this run a {type(self).__name__}, which cannot load its "
            "state. Use the schedule the checkpoint was saved with, or type scheduler.on_resume: extend or restart"
        )
    _check_same_curve(self, state)
    names = _group_names(self)
    saved_names = state.pop(_GROUP_NAMES, None)
    if saved_names is None:
        saved_names = names
    check_group_names(saved_names)
    state = check_scheduler_state(torch_state(self), state)
    lists = [key for key in BY_GROUP if isinstance(state.get(key), (list, tuple))]
    for key in lists:
        if len(state[key]) != len(saved_names):
            raise ConfigError(
                f"scheduler: the checkpoint's {type(self).__name__} has a {key} of {len(state[key])} param groups "
                f"without names; this run has {len(names)}: {format_names(names)}. Use the groups the checkpoint was "
                "saved with"
            )
    saved_index = {name: index for index, name in enumerate(saved_names)}
    for key in lists:
        # An entry of lr_lambdas holds the lambda's fields; None leaves them unchanged.
        own = [None] * len(names) if key == "lr_lambdas" else getattr(self, key)
        state[key] = [
            own[index] if key in PEAKS or name not in saved_index else state[key][saved_index[name]]
            for index, name in enumerate(names)
        ]
    moved = [index for index, name in enumerate(names) if name in moved_groups(self.optimizer)]
    moved_values = _values_after(self, num_steps(state), moved) if moved else {}
    type(self).load_state_dict(self, state)
    for index, group in enumerate(self.optimizer.param_groups):
        for key, value in moved_values.get(index, {}).items():
            set_value(group, key, value)
        if names[index] not in saved_index and "_last_lr" in state:
            self._last_lr[index] = copy_group(group)["lr"]  # the optimizer, loaded first, has the current lr
    if getattr(self, "cycle_momentum", False):
        _set_cycled_momentum(self)


def _check_same_curve(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Check that a lambda of the state has the arguments of this run's: torch would mix the two.

    A checkpoint of this version says more, see `record`; of an older one, this is all that is known.
    """
    for saved, own in zip(state.get("lr_lambdas", ()), getattr(scheduler, "lr_lambdas", ()), strict=False):
        if saved is not None and hasattr(own, "__dict__") and saved.keys() != vars(own).keys():
            raise ConfigError(
                f"scheduler: the checkpoint has a curve with {format_names(saved)}, this run a {type(own).__name__} "
                f"with {format_names(vars(own))}. Use the schedule the checkpoint was saved with, or type "
                "scheduler.on_resume: extend or restart"
            )


def _set_cycled_momentum(scheduler: LRScheduler) -> None:
    """Set each group's momentum to what the loaded schedule gives it at its step.

    Where a rule was edited, the loaded optimizer has the config's momentum, which a new scheduler has set to that of
    its first step.
    """
    groups = scheduler.optimizer.param_groups
    lrs = [copy_value(group["lr"]) for group in groups]
    take_steps(copy.copy(scheduler), num_steps(scheduler.state_dict()))
    for group, lr in zip(groups, lrs, strict=True):
        set_value(group, "lr", lr)


def _values_after(scheduler: LRScheduler, steps: int, moved: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The lr and momentum that a new scheduler gives after `steps` steps to the groups at these positions.

    The schedulers inside it advance too; the state that is loaded next resets them.

    Raises:
        ConfigError: as `advance`.
    """
    groups = scheduler.optimizer.param_groups
    before = [copy_group(group) for group in groups]
    names = _group_names(scheduler)
    advance(copy.copy(scheduler), steps, [names[index] for index in moved])
    after = {index: copy_group(groups[index]) for index in moved}
    for group, values in zip(groups, before, strict=True):
        for key in ("lr", *momentum_keys(group)):
            set_value(group, key, values[key])
    return {index: {key: values[key] for key in ("lr", *momentum_keys(values))} for index, values in after.items()}


def _group_names(scheduler: LRScheduler) -> list[str]:
    # A user may add a group without a name.
    groups = scheduler.optimizer.param_groups
    return [str(group.get("name", f"group{index}")) for index, group in enumerate(groups)]
