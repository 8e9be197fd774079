"""Param groups that join an optimizer while a schedule drives it: they go on their curve, at the step where the run is.

torch's schedulers have lists with one entry per group, made when they are built, and fail at a group more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import ref

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..core.errors import ConfigError
from ..core.param_group_keys import SCHEDULE
from .by_group import SchedulerByGroup
from .group_view import GroupView
from .param_group_values import INITIAL_LR, copy_group, copy_value, momentum_keys, set_value
from .saved_schedule import BY_GROUP
from .scheduler_state import take_steps

_FOLLOWERS = "_schedules_of_joined_groups"


@dataclass
class _Follower:
    """A scheduler, and how to build one like it for another group."""

    scheduler: Callable[[], LRScheduler | None]
    build: Callable[[Optimizer], LRScheduler]
    num_groups: int
    """How many groups it drives."""


class _SingleGroup(GroupView):
    """One param group that looks like an optimizer."""

    def __init__(self, group: dict[str, Any]) -> None:
        self._group = group
        self.defaults = dict(group)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The group."""
        return [self._group]


def follow_joins(optimizer: Optimizer, scheduler: LRScheduler, build: Callable[[Optimizer], LRScheduler]) -> None:
    """Let a scheduler drive the groups that join its optimizer later.

    Args:
        optimizer: the one that the scheduler drives.
        scheduler: a new one.
        build: gives another one, with the same config, for other groups.
    """
    followers = [follower for follower in getattr(optimizer, _FOLLOWERS, ()) if follower.scheduler() is not None]
    setattr(optimizer, _FOLLOWERS, [*followers, _Follower(ref(scheduler), build, len(optimizer.param_groups))])


def schedule_joined_groups(optimizer: Any, *, keep_values: bool = False, at_current_lr: bool = False) -> None:
    """Put the groups that have joined since the schedulers were built on their curves, where these are now.

    Args:
        optimizer: of a scheduler, or a view of its groups.
        keep_values: whether the groups have the lr and momentum of their step already, from a checkpoint.
        at_current_lr: whether the lr that they were given is that of this step, not their peak.

    Raises:
        ConfigError: a group has a `schedule` override, and no group that was there from the start has one.
    """
    while type(optimizer) is GroupView:
        optimizer = optimizer.optimizer
    for follower in getattr(optimizer, _FOLLOWERS, ()):
        scheduler = follower.scheduler()
        if scheduler is None or scheduler.optimizer is not optimizer:  # a proxy's groups are never joined
            continue
        for group in optimizer.param_groups[follower.num_groups :]:
            before = copy_group(group)
            if at_current_lr:
                group["peak_lr"] = _find_peak(follower, scheduler, group)
            set_value(group, "lr", group.get("peak_lr", group["lr"]))
            group.setdefault(INITIAL_LR, copy_value(group["lr"]))
            _add_group(scheduler, follower.build(_SingleGroup(group)), group)
            _drive_values(scheduler, group, is_loaded=keep_values)
            if keep_values:
                for key in ("lr", *momentum_keys(group)):
                    set_value(group, key, before[key])
            elif at_current_lr:
                set_value(group, "lr", before["lr"])
            follower.num_groups += 1


def _drive_values(scheduler: LRScheduler, group: dict[str, Any], *, is_loaded: bool) -> None:
    """Let a scheduler drive what `also` says in a group that has joined."""
    if not isinstance(scheduler, SchedulerByGroup) or scheduler.values is None:
        return
    if is_loaded and "configured" not in group:
        raise ConfigError(
            f"also: param group '{group.get('name')}' joined after the scheduler was built, and its values before the "
            "checkpoint are not known. Build the optimizer with lightning_optim.OptimizerFactory"
        )
    scheduler.values.join(group)
    scheduler.apply_values()


def _find_peak(follower: _Follower, scheduler: LRScheduler, group: dict[str, Any]) -> float:
    """The peak whose curve has the group's lr at this step; the lr itself where the curve is at 0."""
    probe = copy_group(group)
    lr = float(group["lr"])
    single = follower.build(_SingleGroup(probe))
    _advance(single._schedulers[0] if isinstance(single, SchedulerByGroup) else single, scheduler)
    return lr * lr / float(probe["lr"]) if probe["lr"] else lr


def _add_group(scheduler: LRScheduler, single: LRScheduler, group: dict[str, Any]) -> None:
    """Add to a scheduler a group that `single`, a new scheduler of the same config, drives alone."""
    if isinstance(scheduler, SchedulerByGroup):
        inner = single._schedulers[0] if isinstance(single, SchedulerByGroup) else single
        found = [s for view, s in zip(scheduler._views, scheduler._schedulers, strict=True) if view._contains(group)]
        if not found:  # the first group with this override
            _advance(inner, scheduler)
            view = GroupView(scheduler.optimizer, group.get(SCHEDULE), None)
            for node in _nodes(inner):
                node.optimizer = view
            scheduler._views.append(view)
            scheduler._schedulers.append(inner)
            return
        scheduler, single = found[0], inner
    elif isinstance(single, SchedulerByGroup):
        raise ConfigError(
            f"schedule: param group '{group.get('name')}' joins with a schedule of its own, but all groups before it "
            "share one curve. Give a rule of the config a schedule too, or remove that of this group"
        )
    _advance(single, scheduler)
    for node, other in zip(_nodes(scheduler), _nodes(single), strict=True):
        for key in BY_GROUP:
            if isinstance(getattr(node, key, None), list) and isinstance(getattr(other, key, None), list):
                getattr(node, key).extend(getattr(other, key)[-1:])


def _advance(single: LRScheduler, scheduler: LRScheduler) -> None:
    """Bring a new scheduler to the step of another; ReduceLROnPlateau has no curve, so the group starts at its lr."""
    if not isinstance(single, ReduceLROnPlateau):
        take_steps(single, max(getattr(node, "last_epoch", 0) for node in _nodes(scheduler)))


def _nodes(scheduler: LRScheduler) -> Iterator[LRScheduler]:
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from _nodes(inner)
