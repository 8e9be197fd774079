"""Feeds logged metrics to what waits for a plateau in a fit: the triggers of stages, and ReduceLROnPlateau."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..stages.plateau import Plateau
from .lightning_internals import skip_remaining_batches, stop_skipping_batches
from .logged_metrics import LoggedMetrics
from .pending_plateau_step import PendingPlateauStep
from .remaining_work import EPOCH_END, find_remaining_work, resume_at_remaining_work

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class PlateauTracker:
    """Feeds metrics to plateaus and schedulers at the same moments in an uninterrupted run and in a resumed one."""

    def __init__(self) -> None:
        self._metrics = LoggedMetrics()
        self._pending_steps: list[PendingPlateauStep] = []
        self._resumed_at: str | None = None
        """What remained to be run when the checkpoint was saved that this run has resumed from."""

    @property
    def has_schedulers(self) -> bool:
        """Whether a scheduler waits for a plateau."""
        return bool(self._pending_steps)

    def take_over_schedulers(self, trainer: Trainer) -> None:
        """Track the trainer's ReduceLROnPlateau schedulers; under manual optimization, the module steps them."""
        if trainer.lightning_module.automatic_optimization:
            configs = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
            self._pending_steps = [PendingPlateauStep(config, trainer) for config in configs]

    def on_train_start(self, trainer: Trainer) -> None:
        """Restore the metrics and the position of a loaded checkpoint."""
        self._metrics.restore(trainer)
        if self._resumed_at == EPOCH_END:
            skip_remaining_batches(trainer)

    def after_batch(self, trainer: Trainer, batch_idx: int) -> None:
        """Find out which schedulers are due after this batch."""
        self._metrics.after_batch(trainer)
        for step in self._pending_steps:
            step.after_batch(batch_idx)

    def before_validation(self, trainer: Trainer) -> None:
        """Remember the metrics before a validation."""
        self._metrics.before_validation(trainer)

    def after_validation(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """Mark the plateaus whose metric this validation has logged."""
        logged = self._metrics.after_validation(trainer)
        for plateau in watched:
            plateau.pending |= plateau.monitor in logged

    def after_epoch(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """Mark the plateaus whose metric training logs, and find out which schedulers are due after this epoch."""
        if self._resumed_at == EPOCH_END:
            stop_skipping_batches(trainer)
        self._resumed_at = None
        self._metrics.after_epoch(trainer)
        for step in self._pending_steps:
            step.after_epoch(trainer.current_epoch)
        for plateau in watched:
            plateau.pending |= not self._metrics.is_from_validation(plateau.monitor)

    def step_schedulers(self, *intervals: str) -> None:
        """Take the pending steps of schedulers with these intervals.

        Raises:
            ConfigError: nothing logs a scheduler's metric.
        """
        for step in self._pending_steps:
            if step.config.interval in intervals:
                step.flush(self._metrics)

    def observe_metrics(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """Pass new values to the plateaus that are due.

        Raises:
            ConfigError: nothing logs a plateau's metric.
        """
        for plateau in watched:
            if plateau.pending:
                plateau.observe(self._metrics.require(trainer, plateau.monitor, plateau.key))

    def state_dict(self, trainer: Trainer | None, monitors: Collection[str]) -> dict[str, Any]:
        """The pending steps, the metrics that something waits for, and what remains to be run before the next batch.

        Args:
            trainer: None outside a fit.
            monitors: the metrics that stages wait for.
        """
        names = {*monitors, *(str(step.config.monitor) for step in self._pending_steps)}
        return {
            "pending_steps": [step.pending for step in self._pending_steps],
            "metrics": self._metrics.state_dict(trainer, names),
            "remaining": find_remaining_work(trainer) if names and trainer is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: MutableMapping[str, Any], state: Mapping[str, Any]) -> None:
        """If something waits for a metric, let Lightning run the end of the epoch that it would skip."""
        remaining = state.get("remaining")
        self._resumed_at = remaining if remaining and resume_at_remaining_work(checkpoint, remaining) else None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state once the schedulers are taken over; a new scheduler has no pending step."""
        self._metrics.load_state_dict(state["metrics"])
        for step, pending in zip(self._pending_steps, state["pending_steps"], strict=False):
            step.pending = pending

    def close(self) -> None:
        """Restore the schedulers' classes."""
        for step in self._pending_steps:
            step.close()
        self._pending_steps = []
