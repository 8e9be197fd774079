"""Schedulers whose per-group lists are saved with the groups' names, and follow them through an edited config.

torch's schedulers keep lists with one entry for each group, by place: where a rule was added, renamed or split, a
checkpoint's lists would be of another length, or give a group its neighbour's values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import SCHEDULE
from .by_group import SchedulerByGroup, advance, curves, momenta, moved_groups, num_steps
from .param_group_values import assign, copied

NAMES = "group_names"
CLASS = "class"

# What torch's schedulers keep by group. The first are each group's configured lr, which the config decides.
_PEAKS = ("base_lrs", "max_lrs")
_BY_GROUP = (*_PEAKS, "_last_lr", "lr_lambdas", "min_lrs", "base_momentums", "max_momentums")


def by_name(scheduler: LRScheduler) -> LRScheduler:
    """The same scheduler, saving and loading its lists by name; all in it too.

    Its class stays torch's own: the two methods are put on the instance.

    Args:
        scheduler: of an optimizer whose groups have names.
    """
    for inner in getattr(scheduler, "_schedulers", ()):
        by_name(inner)
    if not isinstance(scheduler, SchedulerByGroup):  # each of its curves keeps its own lists
        for method in (state_dict, load_state_dict):
            setattr(scheduler, method.__name__, MethodType(method, scheduler))
    return scheduler


# As methods on an instance; under these names, since that is how a bound method is pickled.


def state_dict(self: LRScheduler) -> dict[str, Any]:
    """The class's, its name, and the names of the groups."""
    state = type(self).state_dict(self)
    for method in ("state_dict", "load_state_dict"):
        state.pop(method, None)  # torch's takes all that stands on the instance
    return {**state, CLASS: type(self).__name__, NAMES: _names(self)}


def load_state_dict(self: LRScheduler, state_dict: Mapping[str, Any]) -> None:
    """Each group's entries by its name; a group that is new keeps the config's.

    Raises:
        ConfigError: the state is another schedule's; or it says no names, and is of another number of groups.
    """
    saved_curves = curves(state_dict)
    rest = [curve["state"] for curve in saved_curves if curve[SCHEDULE] is None]
    if not rest:  # every group had a schedule of its own
        return advance(self, max(num_steps(curve["state"]) for curve in saved_curves), _names(self))
    state = dict(rest[0])
    if (saved_class := state.pop(CLASS, type(self).__name__)) != type(self).__name__:
        raise ConfigError(
            f"scheduler: the checkpoint's is a {saved_class}, this run's a {type(self).__name__}, which cannot go on "
            "from its state. Give the schedule that it was saved under"
        )
    now = _names(self)
    lists = [key for key in _BY_GROUP if isinstance(state.get(key), list)]
    saved = state.pop(NAMES, None) or now
    for key in lists:
        if len(state[key]) != len(saved):
            raise ConfigError(
                f"scheduler: the checkpoint's {type(self).__name__} has a {key} of {len(state[key])} param groups, "
                f"which it does not name; this run has {len(now)}: {format_names(now)}. Give the groups it was "
                "saved under"
            )
    places = {name: place for place, name in enumerate(saved)}
    for key in lists:
        # A lambda's fields; None leaves it as it is.
        own = [None] * len(now) if key == "lr_lambdas" else getattr(self, key)
        state[key] = [
            own[index] if key in _PEAKS or name not in places else state[key][places[name]]
            for index, name in enumerate(now)
        ]
    arrived = [place for place, name in enumerate(now) if name in moved_groups(self.optimizer)]
    values = _values_after(self, num_steps(state), arrived) if arrived else {}
    type(self).load_state_dict(self, state)
    for place, group in enumerate(self.optimizer.param_groups):
        for key, value in values.get(place, {}).items():
            assign(group, key, value)
        if now[place] not in places and "_last_lr" in state:
            self._last_lr[place] = copied(group)["lr"]  # as the optimizer has it, which is loaded first


def _values_after(scheduler: LRScheduler, steps: int, arrived: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What a new scheduler makes of groups that come from other curves in as many steps as the run has behind it.

    The schedulers in it are moved on with it: what is loaded next puts them where they belong.

    Raises:
        ConfigError: it is one whose steps are not told by their number.
    """
    groups = scheduler.optimizer.param_groups
    before = [copied(group) for group in groups]
    names = _names(scheduler)
    advance(copy.copy(scheduler), steps, [names[place] for place in arrived])
    after = {place: copied(groups[place]) for place in arrived}
    for group, values in zip(groups, before, strict=True):
        for key in ("lr", *momenta(group)):
            assign(group, key, values[key])
    return {place: {key: values[key] for key in ("lr", *momenta(values))} for place, values in after.items()}


def _names(scheduler: LRScheduler) -> list[str]:
    # Somebody may add a group without a name.
    groups = scheduler.optimizer.param_groups
    return [str(group.get("name", f"group{place}")) for place, group in enumerate(groups)]
