"""Let Lightning's LearningRateFinder and BatchSizeFinder run what the fit will train, and leave the fit as it was.

They train for some steps inside `on_fit_start`, before other callbacks have seen the optimizers, and without the
trainer's other callbacks. What they have used is built anew afterwards: the optimizer, its schedule, whose length
depends on the batch size, and the loaders.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from ..core.errors import ConfigError
from .lightning_internals import forget_tuning, is_within_epoch, isolated_rng, waits_for_training_state
from .suggested_lr import (
    find_peaks,
    find_ratios,
    in_proportion,
    is_from_factory,
    remember_suggestion,
    restore_proportions,
    use_suggestion,
)

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_METHODS: tuple[tuple[type, str], ...] = ((LearningRateFinder, "lr_find"), (BatchSizeFinder, "scale_batch_size"))


def hook_tuners(trainer: Trainer) -> None:
    """Install a hook on each tuner callback of a trainer that has none yet."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    for callback in callbacks:
        for cls, method in _METHODS:
            if isinstance(callback, cls) and not isinstance(getattr(callback, method), TunerHook):
                setattr(callback, method, TunerHook(callback, method))


class TunerHook:
    """Takes the place of the method with which a tuner callback trains.

    A callback with a context manager `around_tuning(trainer, module)` takes part: it sets up what the fit trains first,
    and gives the factor on the lr of each param group, by name.

    Args:
        tuner: a LearningRateFinder or BatchSizeFinder.
        method: the name of its method.
    """

    def __init__(self, tuner: Any, method: str) -> None:
        self._tuner, self._method = tuner, method

    def __call__(self, trainer: Trainer, module: LightningModule) -> None:
        """Run the tuner; called by itself, and by subclasses that tune in the middle of the training.

        Raises:
            ConfigError: the run resumes from a checkpoint, or the suggested lr would be overwritten.
        """
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        takes_part = [callback for callback in callbacks if hasattr(callback, "around_tuning")]
        is_ours = takes_part or any(is_from_factory(optimizer) for optimizer in trainer.optimizers)
        if not trainer.training or not is_ours:
            self._run(trainer, module)
            return
        self._check_not_resuming(trainer)
        peaks = [find_peaks(optimizer) for optimizer in trainer.optimizers]
        try:
            lr = self._run_first_stage(trainer, module, takes_part)
        finally:
            trainer.callbacks = callbacks  # type: ignore[attr-defined]  # Lightning loses them where a tuner raises
        if not is_within_epoch(trainer):
            forget_tuning(trainer)
            trainer.strategy.setup_optimizers(trainer)
            trainer.strategy.setup_precision_plugin()
            if lr is not None:
                use_suggestion(trainer, lr, peaks)

    def _run(self, trainer: Trainer, module: LightningModule) -> None:
        getattr(type(self._tuner), self._method)(self._tuner, trainer, module)

    def _run_first_stage(self, trainer: Trainer, module: LightningModule, takes_part: list[Any]) -> float | None:
        """Run the tuner; returns the lr that it has suggested and set, None if there is none."""
        scales: dict[str, float] = {}
        before = getattr(self._tuner, "optimal_lr", None)
        with ExitStack() as stack:
            stack.enter_context(isolated_rng())
            for callback in takes_part:
                scales |= stack.enter_context(callback.around_tuning(trainer, module))
            ratios = [find_ratios(optimizer, scales) for optimizer in trainer.optimizers]
            if isinstance(self._tuner, LearningRateFinder):
                for optimizer, own in zip(trainer.optimizers, ratios, strict=True):
                    stack.enter_context(in_proportion(optimizer, own))
            lr = None
            try:
                self._run(trainer, module)
            finally:  # `Tuner.lr_find` ends the fit with an exception
                if getattr(self._tuner, "optimal_lr", None) is not before:
                    lr = remember_suggestion(module, self._tuner)
            if lr is not None:
                for optimizer, own in zip(trainer.optimizers, ratios, strict=True):
                    restore_proportions(optimizer, own, lr)
        return lr

    def _check_not_resuming(self, trainer: Trainer) -> None:
        if waits_for_training_state(trainer):
            raise ConfigError(
                f"trainer.callbacks: with {type(self._tuner).__name__}, Lightning forgets the checkpoint that the run "
                "resumes from: epoch, steps and optimizers would start over. Remove the callback to resume, or start "
                "without ckpt_path"
            )
