"""What a load of an optimizer's state means for its schedule, where the checkpoint or this run has none.

Lightning loads as many schedulers as both have: nothing else notices that a schedule was added or removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from weakref import ref

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .param_group_values import INITIAL_LR, SCHEDULER_KEYS, WEIGHT_DECAY, copy_value, momentum_keys

_LOG = logging.getLogger(__name__)
_WATCH = "_schedule_load_watch"

Groups = Iterable[Mapping[str, Any]]


class Resumable(Protocol):
    """What is told of the loads of an optimizer."""

    def after_optimizer_load(self, scheduler: LRScheduler, *, was_scheduled: bool) -> None:
        """Called when the optimizer's state has been loaded.

        Args:
            scheduler: that drives the optimizer.
            was_scheduled: whether a scheduler drove the optimizer that was saved.
        """

    def check_loaded(self) -> None:
        """Called before a step after such a load; raises a ConfigError where the schedule is unclear."""


def mark_groups_scheduled(optimizer: Optimizer) -> None:
    """Record in the groups that a scheduler drives them, as most of torch's schedulers do."""
    for group in optimizer.param_groups:
        group.setdefault(INITIAL_LR, copy_value(group["lr"]))


def watch_loads(optimizer: Optimizer, scheduler: LRScheduler, resumable: Resumable) -> None:
    """Tell `resumable` of every load of the optimizer's state; of several schedulers, only the last one's is told."""
    watch = getattr(optimizer, _WATCH, None)
    if watch is None:
        watch = _LoadWatch()
        setattr(optimizer, _WATCH, watch)
        # Before the other hooks: loading by name gives every group the keys that it has in this run.
        optimizer.register_load_state_dict_pre_hook(watch.before_load, prepend=True)
        optimizer.register_load_state_dict_post_hook(watch.after_load)
    watch.scheduler, watch.resumable = ref(scheduler), ref(resumable)


class _LoadWatch:
    """The hooks of one optimizer."""

    # Weak references, as torch's: a scheduler holds its optimizer.
    scheduler: Callable[[], LRScheduler | None]
    resumable: Callable[[], Resumable | None]

    def __init__(self) -> None:
        self._was_scheduled = True
        self._has_step_hook = False

    def before_load(self, optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
        groups = state_dict.get("param_groups")  # not yet checked, as this is the first hook
        groups = groups if isinstance(groups, (list, tuple)) else ()
        self._was_scheduled = any(INITIAL_LR in group for group in groups if isinstance(group, Mapping))

    def after_load(self, optimizer: Optimizer) -> None:
        scheduler, resumable = self.scheduler(), self.resumable()
        if scheduler is None or resumable is None:
            return
        resumable.after_optimizer_load(scheduler, was_scheduled=self._was_scheduled)
        if not self._has_step_hook:
            self._has_step_hook = True
            optimizer.register_step_pre_hook(self.before_step)

    def before_step(self, *_: Any) -> None:
        resumable = self.resumable()
        if resumable is not None:
            resumable.check_loaded()


def was_schedule_removed(current: Groups, saved: Groups) -> bool:
    """Whether a scheduler drove the saved groups, and none drives the current ones."""
    return any(INITIAL_LR in group for group in saved) and not any(INITIAL_LR in group for group in current)


def without_schedule(group: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """A loaded group whose schedule was removed from the config: lr, momentum and weight decay are those of the config.

    Args:
        group: with the loaded values.
        current: the group as the config builds it.
    """
    configured = {key: current[key] for key in ("lr", *momentum_keys(current), WEIGHT_DECAY) if key in current}
    return {**{key: value for key, value in group.items() if key not in SCHEDULER_KEYS}, **configured}


def log_removed_schedule() -> None:
    """Say once what `without_schedule` does."""
    _LOG.warning(
        "scheduler: the checkpoint was saved under a schedule, and this run has none: each group continues at its "
        "configured lr"
    )
