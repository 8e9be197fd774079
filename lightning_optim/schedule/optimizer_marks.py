"""Marks on an optimizer: what its scheduler knows of its groups and drives, and which changed curve at a load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from .group_view import GroupView
from .value_curves import ValueCurves

_SCHEDULED = "_has_schedule_by_group"
_MOVED = "_moved_to_other_curves"
_VALUES = "_values_driven_besides_lr"


def mark_scheduled(optimizer: Optimizer) -> None:
    """Mark an optimizer as driven by a scheduler that knows its groups."""
    setattr(optimizer, _SCHEDULED, True)


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a scheduler that knows its groups drives the optimizer."""
    return getattr(optimizer, _SCHEDULED, False)


def mark_values(optimizer: Optimizer, values: ValueCurves | None) -> None:
    """Record what the scheduler drives besides lr."""
    setattr(optimizer, _VALUES, values)


def driven_values(optimizer: Any) -> ValueCurves | None:
    """What `mark_values` recorded."""
    values: ValueCurves | None = getattr(_unwrap(optimizer), _VALUES, None)
    return values


def is_scheduled_elsewhere(optimizer: Optimizer) -> bool:
    """Whether a scheduler that `SchedulerFactory` did not build drives the optimizer, as far as can be detected.

    torch's schedulers wrap the optimizer's `step`; ReduceLROnPlateau does not and goes undetected.
    """
    return hasattr(optimizer.step, "_wrapped_by_lr_sched") and not is_scheduled(optimizer)


def mark_moved_groups(optimizer: Any, names: Iterable[str]) -> None:
    """Record which groups are on another curve than in the checkpoint that was loaded.

    Their lr is the config's until the scheduler is loaded too.

    Args:
        optimizer: what was loaded: an optimizer or a `SchedulerProxy`.
        names: of the groups.
    """
    setattr(_unwrap(optimizer), _MOVED, frozenset(names))


def moved_groups(optimizer: Any) -> frozenset[str]:
    """The names that `mark_moved_groups` recorded."""
    return getattr(_unwrap(optimizer), _MOVED, frozenset())


def _unwrap(optimizer: Any) -> Any:
    while isinstance(optimizer, GroupView):
        optimizer = optimizer.optimizer
    return optimizer
