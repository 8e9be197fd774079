"""What the modifiers of an optimizer need of the trainer: all gradients of a step on one batch, and EvalWeights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..optim.sharpness import is_sharpened
from .eval_weights import EvalWeights

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch.optim import Optimizer


def check_modifiers(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]], trainer: Trainer) -> None:
    """Check that a trainer does what an optimizer with these values needs.

    Args:
        optimizer: a built one.
        groups: its param groups, or the values that they will have: stages may set modifiers.
        trainer: of the fit.

    Raises:
        ConfigError: a step takes several gradients, and the trainer would mix them up; or a group has `schedule_free`,
            and no `EvalWeights` shows its evaluation weights.
    """
    _check_gradients_per_step(optimizer, groups, trainer)
    has_callback = any(isinstance(callback, EvalWeights) for callback in _callbacks(trainer))
    if any(group.get("schedule_free") for group in groups) and not has_callback:
        raise ConfigError(
            "schedule_free: validations and checkpoints would have the training weights, and not the average that is "
            "to be evaluated. Add the callback, for example by "
            "+callbacks.eval_weights._target_=lightning_optim.EvalWeights"
        )


def _check_gradients_per_step(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]], trainer: Trainer) -> None:
    is_second_of_sharpness = is_sharpened(groups)
    evaluations = 2 if is_second_of_sharpness else getattr(optimizer, "gradients_per_step", 1)
    if evaluations == 1:
        return
    cause, remedy = (" (sharpness)", "remove sharpness") if is_second_of_sharpness else ("", "use another optimizer")
    prefix = f"{type(optimizer).__name__} takes {evaluations} gradients a step{cause}"
    if trainer.accumulate_grad_batches > 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches: {prefix}, and under accumulation the second would be added to the "
            f"first. Type trainer.accumulate_grad_batches=1, or {remedy}"
        )
    for callback in _callbacks(trainer):
        accumulates = getattr(callback, "going_to_accumulate_grad_batches", None)  # Lightning's scheduler of it has one
        if accumulates is not None and accumulates():
            raise ConfigError(
                f"trainer.callbacks: {prefix}, and under the accumulation of {type(callback).__name__} the second "
                f"would be added to the first. Remove the callback, or {remedy}"
            )
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ConfigError(
            f"trainer.precision: {prefix}, and with a GradScaler Lightning computes only one. Type "
            f"trainer.precision=bf16-mixed, or {remedy}"
        )


def _callbacks(trainer: Trainer) -> list[Any]:
    return getattr(trainer, "callbacks", [])
