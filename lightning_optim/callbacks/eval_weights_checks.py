"""What `schedule_free` and EvalWeights need of each other, and what does not go along with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging
from torch.optim import Optimizer

from ..core.errors import ConfigError
from .staged_optimizers import find_optimizers

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer


def check_callbacks(trainer: Trainer, own: Callback) -> None:
    """Check the other callbacks of a trainer.

    Raises:
        ConfigError: one averages the weights, too; or prunes them for good before the average is shown.
    """
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    for callback in callbacks[: callbacks.index(own)] if own in callbacks else ():
        if isinstance(callback, ModelPruning):
            raise ConfigError(
                f"trainer.callbacks: at the end of a fit, {type(callback).__name__} sets pruned weights to 0, and "
                "EvalWeights then shows the average, in which they are not 0. Put EvalWeights before it in the list"
            )
    for callback in callbacks:
        if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} averages the weights and swaps them for a validation, "
                "as EvalWeights does with those of schedule_free: each would overwrite the other's. Remove it; or "
                "remove EvalWeights and type schedule_free: null"
            )


def check_schedule_free(configured: Any) -> None:
    """Raises a ConfigError if nothing that `configure_optimizers` has returned has `schedule_free`."""
    if not _has_schedule_free(find_optimizers(configured)):
        raise ConfigError(
            "EvalWeights: no param group has schedule_free. Type for example optimizer=schedule_free_adamw, or remove "
            "the callback"
        )


def check_eval_weights(optimizer: Optimizer, *, has_callback: bool) -> None:
    """Raises a ConfigError if an optimizer has `schedule_free`, and no EvalWeights shows its evaluation weights."""
    if _has_schedule_free([optimizer]) and not has_callback:
        raise ConfigError(
            "schedule_free: validations and checkpoints would have the training weights, and not the average that is "
            "to be evaluated. Add the callback, for example by "
            "+callbacks.eval_weights._target_=lightning_optim.EvalWeights"
        )


def _has_schedule_free(optimizers: Iterable[Optimizer]) -> bool:
    return any(group.get("schedule_free") for optimizer in optimizers for group in optimizer.param_groups)
