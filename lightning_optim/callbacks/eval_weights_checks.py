"""What EvalWeights needs, and what does not go along with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging

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
                "as EvalWeights does too, so each would overwrite the weights of the other. Remove this callback, or "
                "remove EvalWeights and type schedule_free: null"
            )


def check_schedule_free(configured: Any, trainer: Trainer) -> None:
    """Raises a ConfigError if nothing that `configure_optimizers` has returned has `schedule_free`, nor a stage."""
    stages = [stage for callback in getattr(trainer, "callbacks", []) for stage in getattr(callback, "stages", ())]
    groups = [group for optimizer in find_optimizers(configured) for group in optimizer.param_groups]
    values = (*groups, *(stage.hyperparameters for stage in stages))
    if all(each.get("schedule_free") is None for each in values):
        raise ConfigError(
            "EvalWeights: no param group has schedule_free. Type for example optimizer=schedule_free_adamw, or remove "
            "the callback"
        )
