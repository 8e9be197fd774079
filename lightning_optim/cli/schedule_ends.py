"""Where the curve of each param group ends its warm-up and comes to its end, in optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from ..build.scheduler_config import find_scheduler
from ..core.param_group_keys import SCHEDULE
from ..schedule.also import resolve_also
from ..schedule.catalog import schedule_info
from ..schedule.factory import SchedulerFactory
from ..schedule.split_by_curve import resolve_by_override
from ..schedule.value_curves import show_ends
from .run_length import RunLength


@dataclass(frozen=True, kw_only=True)
class ScheduleEnd:
    """A curve, and how far it reaches."""

    groups: tuple[str, ...]
    """The param groups that follow it."""
    schedule: str
    """Its name; for what it drives besides lr, with the key: `weight_decay (cosine)`."""
    warmup_ends: int | None
    """After how many optimizer steps; None without a warm-up."""
    ends: int | None
    """After how many optimizer steps it has run once; None for a curve without an end. The lr stays at its last value,
    but that of torch's cosine rises again."""


def find_ends(optimizer: Optimizer, scheduler: SchedulerFactory | None, length: RunLength) -> Iterator[ScheduleEnd]:
    """Each curve of a run; none where every lr is constant.

    Args:
        optimizer: with all its groups.
        scheduler: the run's.
        length: of the run; it has been checked with this scheduler.

    Raises:
        ConfigError: the schedule does not fit the run.
    """
    found = find_scheduler(optimizer, scheduler)
    if found is None:
        return
    total = length.total(found.interval) if found.needs_total_steps_for(optimizer) else None
    steps_per_epoch = length.epoch_length() if found.needs_steps_per_epoch_for(optimizer) else None
    unit = length.epoch_length() if found.interval == "epoch" else 1
    for override, resolved in resolve_by_override(found, optimizer, total, steps_per_epoch):
        warmup, end = resolved["warmup_steps"], _find_end(resolved)
        yield ScheduleEnd(
            groups=tuple(group["name"] for group in optimizer.param_groups if group.get(SCHEDULE) == override),
            schedule=resolved["name"],
            warmup_ends=warmup * unit if warmup else None,
            ends=None if end is None else end * unit,
        )
    for key, curve in resolve_also(found.also, found.total_steps if found.total_steps is not None else total).items():
        yield ScheduleEnd(
            groups=tuple(group["name"] for group in optimizer.param_groups if show_ends(group, {key: curve})),
            schedule=f"{key} ({curve['name']})",
            warmup_ends=None,
            ends=curve["steps"] * unit,
        )


def _find_end(resolved: Mapping[str, Any]) -> int | None:
    """The step at which a resolved schedule has run once."""
    info = schedule_info(resolved["name"])
    start = 0 if info.takes_warmup_steps else resolved["warmup_steps"]
    if info.takes_blocks:
        ends = [_find_end(block) for block in resolved["schedulers"]]
        if info.name == "sequential":
            return None if ends[-1] is None else int(start + resolved["milestones"][-1] + ends[-1])
        return None if None in ends else start + max(end for end in ends if end is not None)
    if "milestones" in resolved:
        return int(start + resolved["milestones"][-1])
    length: int | None = resolved.get(info.length_argument or "total_iters")
    return None if length is None else start + length
