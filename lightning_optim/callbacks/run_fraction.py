"""How much of a run is done, in one unit whoever steps the optimizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from .lightning_internals import batches_per_epoch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def check_run_ends(trainer: Trainer, key: str, hint: str) -> None:
    """Check that the trainer knows where the run ends, before its loaders are set up.

    Args:
        trainer: its limits.
        key: the config key that needs to know, for the error.
        hint: what to type otherwise.

    Raises:
        ConfigError: it has no end, or its loader has no length.
    """
    if trainer.max_steps > 0 or getattr(trainer, "fast_dev_run", False):
        return
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        raise ConfigError(f"{key}: unknown, because the trainer has no end. {hint}, or trainer.max_epochs")
    if math.isinf(batches_per_epoch(trainer)):
        raise ConfigError(f"{key}: unknown, because the training loader has no length. {hint}, or trainer.max_steps")


def get_fraction(trainer: Trainer, batch_idx: int) -> float:
    """The part of the run that is done at the start of a batch, from 0 to 1.

    Of the run's batches, since all optimizers share them, or of `max_steps` where that ends the run earlier. Batches
    whose gradients Lightning accumulates count as one: nothing thaws between them.

    Args:
        trainer: while it trains.
        batch_idx: of the batch in its epoch.
    """
    if getattr(trainer, "fast_dev_run", False):
        return 0.0  # Lightning has overwritten the limits of the real run
    by_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return by_steps
    return max(by_steps, (trainer.current_epoch + _fraction_of_epoch(trainer, batch_idx)) / trainer.max_epochs)


def _fraction_of_epoch(trainer: Trainer, batch_idx: int) -> float:
    batches, accumulated = trainer.num_training_batches, trainer.accumulate_grad_batches
    if math.isinf(batches):
        return 0.0  # `max_steps` ends the run
    return math.ceil(batch_idx / accumulated) / math.ceil(batches / accumulated)
