"""How many optimizer steps or epochs a trainer is configured to run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from ..core.errors import ConfigError
from .lightning_internals import batches_per_epoch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# In a fast dev run Lightning overwrites the limits that say how long the real run is. With this length, the schedule
# stays at its beginning.
_FAST_DEV_RUN_LENGTH = 1_000_000


def get_run_length(trainer: Trainer, interval: str, key: str = "scheduler.total_steps", hint: str = "") -> int:
    """The number of optimizer steps, or of epochs, that the trainer is configured to run.

    Args:
        trainer: before its loaders are set up.
        interval: `step` or `epoch`.
        key: the config key that needs the length, for errors.
        hint: what to type if the length is unknown; by default `key` itself.

    Raises:
        ConfigError: the trainer has no end, its loader has no length, or accumulation changes by epoch.
    """
    if getattr(trainer, "fast_dev_run", 0):
        return _FAST_DEV_RUN_LENGTH
    hint = hint or f"Type {key}"
    max_steps = trainer.max_steps if interval == "step" and trainer.max_steps > 0 else math.inf
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        if math.isfinite(max_steps):
            return int(max_steps)
        raise ConfigError(f"{key}: unknown, because the trainer has no end. {hint}, or trainer.max_epochs")
    if interval == "epoch":
        return trainer.max_epochs
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ConfigError(
            f"{key}: unknown, because a GradientAccumulationScheduler changes the steps per epoch. {hint}"
        )
    batches = batches_per_epoch(trainer)
    if math.isinf(batches) and math.isinf(max_steps):
        raise ConfigError(f"{key}: unknown, because the training loader has no length. {hint}, or trainer.max_steps")
    if math.isinf(batches):
        return int(max_steps)
    return int(min(max_steps, trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches)))
