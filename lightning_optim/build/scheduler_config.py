"""Lightning's scheduler dict for an optimizer from a factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from ..core.param_group_keys import SCHEDULE
from ..schedule.factory import SchedulerFactory
from .read_factory import read_factory


def scheduler_config(
    optimizer: Optimizer,
    scheduler: SchedulerFactory | Mapping[str, Any] | None,
    run_length: Callable[[str], int],
    steps_per_epoch: Callable[[], int],
    position: Callable[[str], int] | None = None,
) -> dict[str, Any] | None:
    """Lightning's scheduler dict; None where every lr is constant.

    Args:
        optimizer: the optimizer to schedule.
        scheduler: the factory, or LightningCLI's mapping of it; None for a constant lr in every group without a
            `schedule` of its own.
        run_length: from an interval, `step` or `epoch`, to how many of them the run has; called only where the
            schedule needs it.
        steps_per_epoch: gives the number of optimizer steps in an epoch; called as seldom.
        position: from an interval to how many of them a resumed run has done; None if nobody knows.

    Raises:
        ConfigError: from the scheduler's factory, from `run_length` or from `steps_per_epoch`.
    """
    scheduler = find_scheduler(optimizer, scheduler)
    if scheduler is None:
        return None
    total_steps = run_length(scheduler.interval) if scheduler.needs_total_steps_for(optimizer) else None
    known = {"steps_per_epoch": steps_per_epoch()} if scheduler.needs_steps_per_epoch_for(optimizer) else {}
    return scheduler.config(optimizer, total_steps, position=position, **known)


def find_scheduler(
    optimizer: Optimizer, scheduler: SchedulerFactory | Mapping[str, Any] | None
) -> SchedulerFactory | None:
    """The schedule of the groups whose rules set none; None where every lr is constant.

    Args:
        optimizer: the optimizer to schedule.
        scheduler: as in the config.
    """
    if scheduler is None:
        if all(SCHEDULE not in group for group in optimizer.param_groups):
            return None
        scheduler = SchedulerFactory("constant", factor=1.0)
    return read_factory("scheduler", scheduler, SchedulerFactory)
