"""How many optimizer steps or epochs a trainer is configured to run, and how many it has done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from ..core.errors import ConfigError
from .lightning_internals import batches_per_epoch, is_last_batch, is_within_epoch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# In a fast dev run Lightning overwrites the limits that say how long the real run is, and without batches
# (`limit_train_batches=0`) it trains nothing. With this length, the schedule stays at its beginning.
_UNTRAINED_LENGTH = 1_000_000
_UNTRAINED_STEPS_PER_EPOCH = 10_000


def get_run_length(trainer: Trainer, interval: str, key: str = "scheduler.total_steps", hint: str = "") -> int:
    """The number of optimizer steps, or of epochs, that the trainer is configured to run.

    Args:
        trainer: before its loaders are set up.
        interval: `step` or `epoch`.
        key: the config key that needs the length, for errors.
        hint: what to type if the length is unknown; by default `key` itself.

    Raises:
        ConfigError: the trainer has no end, its loader has no length, accumulation changes by epoch, or the module
            steps its scheduler itself (manual optimization).
    """
    if getattr(trainer, "fast_dev_run", 0):
        return _UNTRAINED_LENGTH
    hint = hint or f"Type {key}"
    if interval == "step":
        _check_automatic(trainer, key, hint)
    max_steps = trainer.max_steps if interval == "step" and trainer.max_steps > 0 else math.inf
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        if math.isfinite(max_steps):
            return int(max_steps)
        raise ConfigError(f"{key}: unknown, because the trainer has no end. {hint}, or trainer.max_epochs")
    if interval == "epoch":
        return trainer.max_epochs
    steps_per_epoch = _steps_per_epoch(trainer, key, hint)
    if math.isinf(steps_per_epoch) and math.isinf(max_steps):
        raise ConfigError(f"{key}: unknown, because the training loader has no length. {hint}, or trainer.max_steps")
    if math.isinf(steps_per_epoch):
        return int(max_steps)
    if not steps_per_epoch:
        return _UNTRAINED_LENGTH
    return int(min(max_steps, trainer.max_epochs * steps_per_epoch))


def get_steps_per_epoch(trainer: Trainer) -> int:
    """The number of optimizer steps in an epoch.

    Args:
        trainer: before its loaders are set up.

    Raises:
        ConfigError: the loader has no length, accumulation changes by epoch, or optimization is manual.
    """
    if getattr(trainer, "fast_dev_run", 0):
        return _UNTRAINED_STEPS_PER_EPOCH
    key, hint = "scheduler.warmup_epochs", "Type for example scheduler.warmup_steps: 500"
    _check_automatic(trainer, key, hint)
    steps = _steps_per_epoch(trainer, key, hint)
    if math.isinf(steps):
        raise ConfigError(f"{key}: unknown, because the training loader has no length. {hint}")
    return int(steps) or _UNTRAINED_STEPS_PER_EPOCH


def get_position(trainer: Trainer, interval: str) -> int:
    """How many optimizer steps or epochs the trainer has done, also while it restores a checkpoint.

    Args:
        trainer: under automatic optimization; otherwise every step of every optimizer counts.
        interval: `step` or `epoch`.
    """
    if interval == "step":
        return trainer.global_step
    # After the last batch of an epoch, Lightning has stepped its schedulers, and has not counted it.
    return trainer.current_epoch + (is_within_epoch(trainer) and is_last_batch(trainer))


def _check_automatic(trainer: Trainer, key: str, hint: str) -> None:
    """Raises if the module steps its scheduler itself: nobody else knows how often."""
    module = getattr(trainer, "lightning_module", None)
    if module is not None and not module.automatic_optimization:
        raise ConfigError(
            f"{key}: unknown, because the module has automatic_optimization = False and decides itself when to call "
            f"scheduler.step(). {hint}: the number of these calls in the run, or scheduler.interval: epoch if there is "
            "one per epoch"
        )


def _steps_per_epoch(trainer: Trainer, key: str, hint: str) -> float:
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ConfigError(
            f"{key}: unknown, because a GradientAccumulationScheduler changes the steps per epoch. {hint}"
        )
    batches = batches_per_epoch(trainer)
    return batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
