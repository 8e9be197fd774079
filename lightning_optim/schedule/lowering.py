"""`lowers_lr`: whether a scheduler may take an lr below what it was before."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LambdaLR, LinearLR, SequentialLR

from .by_group import SchedulerByGroup
from .curves import Warmup


def lowers_lr(scheduler: Any) -> bool:
    """Whether a scheduler may lower an lr: not if it is known to be constant or a warm-up.

    Args:
        scheduler: torch's, ours or another one.
    """
    if isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        return any(map(lowers_lr, scheduler._schedulers))
    if isinstance(scheduler, SchedulerByGroup):
        return any(map(lowers_lr, scheduler.curves))
    if isinstance(scheduler, ConstantLR):
        return scheduler.factor > 1
    if isinstance(scheduler, LinearLR):
        return scheduler.end_factor < scheduler.start_factor
    return not (isinstance(scheduler, LambdaLR) and all(isinstance(curve, Warmup) for curve in scheduler.lr_lambdas))
