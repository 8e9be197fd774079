"""How many optimizer steps or epochs a trainer is set to run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from ..core.errors import ConfigError
from .lightning_internals import batches_per_epoch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# Lightning overwrites the limits that tell the real length: the schedule stays at its beginning.
_LENGTH_OF_A_FAST_DEV_RUN = 1_000_000


def run_length(trainer: Trainer, interval: str, key: str = "scheduler.total_steps", instead: str = "") -> int:
    """How many optimizer steps, or epochs, the trainer is set to run.

    Args:
        trainer: as it is before its loaders are there.
        interval: `step` or `epoch`.
        key: what asks, for errors.
        instead: what to type where it cannot be known; by default `key` itself.

    Raises:
        ConfigError: the trainer has no end, or its loader no length.
    """
    if getattr(trainer, "fast_dev_run", 0):
        return _LENGTH_OF_A_FAST_DEV_RUN
    instead = instead or f"Type {key}"
    max_steps = trainer.max_steps if interval == "step" and trainer.max_steps > 0 else math.inf
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        if math.isfinite(max_steps):
            return int(max_steps)
        raise ConfigError(f"{key}: the trainer has no end to take it from. {instead}, or trainer.max_epochs")
    if interval == "epoch":
        return trainer.max_epochs
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ConfigError(f"{key}: a GradientAccumulationScheduler changes the steps of an epoch. {instead}")
    batches = batches_per_epoch(trainer)
    if math.isinf(batches) and math.isinf(max_steps):
        raise ConfigError(f"{key}: the training loader has no length to take it from. {instead}, or trainer.max_steps")
    if math.isinf(batches):
        return int(max_steps)
    return int(min(max_steps, trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches)))
