"""What `schedule_free` and EvalWeights need of each other, and what does not go along with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.optim import Optimizer

from ..core.errors import ConfigError
from .staged_optimizers import find_optimizers

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def check_callbacks(trainer: Trainer) -> None:
    """Raises a ConfigError if another callback of the trainer averages the weights."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    for callback in callbacks:
        if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} averages the weights and swaps them for a validation, "
                "as EvalWeights does too, so each would overwrite the weights of the other. Remove this callback, or "
                "remove EvalWeights and type schedule_free: null"
            )


def check_schedule_free(configured: Any) -> None:
    """Raises a ConfigError if nothing that `configure_optimizers` has returned has `schedule_free`."""
    if not _has_schedule_free(find_optimizers(configured)):
        raise ConfigError(
            "EvalWeights: no param group has schedule_free. Type for example optimizer=schedule_free_adamw, or remove "
            "the callback"
        )


def check_eval_weights(optimizer: Optimizer, trainer: Trainer) -> None:
    """Raises a ConfigError if an optimizer has `schedule_free`, and nothing shows its evaluation weights."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    if _has_schedule_free([optimizer]) and not any(type(c).__name__ == "EvalWeights" for c in callbacks):
        raise ConfigError(
            "schedule_free: validations and checkpoints would have the training weights, and not the average that is "
            "to be evaluated. Add the callback, for example by "
            "+callbacks.eval_weights._target_=lightning_optim.EvalWeights"
        )


def _has_schedule_free(optimizers: Iterable[Optimizer]) -> bool:
    return any(group.get("schedule_free") for optimizer in optimizers for group in optimizer.param_groups)
