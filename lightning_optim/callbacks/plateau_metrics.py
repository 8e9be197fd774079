"""What waits for a metric in a fit: triggers of stages, and schedulers that step on a plateau."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..stages.plateau import Plateau
from .lightning_internals import skip_remaining_batches, stop_skipping_batches
from .logged_metrics import LoggedMetrics
from .pending_plateau_step import PendingPlateauStep
from .resume_position import NOTHING, remaining_work, resume_at_remaining_work

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class PlateauTracker:
    """Brings metrics to what waits for them, in the uninterrupted run and in a resumed one at the same moments."""

    def __init__(self) -> None:
        self._metrics = LoggedMetrics()
        self._pending_steps: list[PendingPlateauStep] = []
        self._left: str | None = None

    @property
    def any_scheduler(self) -> bool:
        """Whether a scheduler does."""
        return bool(self._pending_steps)

    def take_over_schedulers(self, trainer: Trainer) -> None:
        """Step the trainer's schedulers that wait for a plateau; with manual optimization, the module does."""
        if trainer.lightning_module.automatic_optimization:
            configs = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
            self._pending_steps = [PendingPlateauStep(config, trainer) for config in configs]

    def on_train_start(self, trainer: Trainer) -> None:
        """Put what a checkpoint held in its place."""
        self._metrics.restore(trainer)
        if self._left == NOTHING:
            skip_remaining_batches(trainer)

    def after_batch(self, trainer: Trainer, batch_idx: int) -> None:
        """Note what the batch makes due."""
        self._metrics.after_batch(trainer)
        for step in self._pending_steps:
            step.after_batch(batch_idx)

    def before_validation(self, trainer: Trainer) -> None:
        """Note what metrics there are."""
        self._metrics.before_validation(trainer)

    def after_validation(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """Note which metrics are new."""
        logged = self._metrics.after_validation(trainer)
        for plateau in watched:
            plateau.due |= plateau.monitor in logged

    def after_epoch(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """The same, for what training logs."""
        if self._left == NOTHING:
            stop_skipping_batches(trainer)
        self._left = None
        self._metrics.after_epoch(trainer)
        for step in self._pending_steps:
            step.after_epoch(trainer.current_epoch)
        for plateau in watched:
            plateau.due |= not self._metrics.is_of_validation(plateau.monitor)

    def step_schedulers(self, *intervals: str) -> None:
        """Take the steps that schedulers of these intervals are owed.

        Raises:
            ConfigError: nothing logs the metric.
        """
        for step in self._pending_steps:
            if step.config.interval in intervals:
                step.flush(self._metrics)

    def look(self, trainer: Trainer, watched: Iterable[Plateau]) -> None:
        """Take what is due of the metrics that stages wait for.

        Raises:
            ConfigError: nothing logs one.
        """
        for plateau in watched:
            if plateau.due:
                plateau.observe(self._metrics.require(trainer, plateau.monitor, plateau.key))

    def state_dict(self, trainer: Trainer | None, monitors: Collection[str]) -> dict[str, Any]:
        """The values of metrics that decide something, and what is still due.

        Args:
            trainer: None outside a fit.
            monitors: the metrics that stages wait for.
        """
        names = {*monitors, *(str(step.config.monitor) for step in self._pending_steps)}
        return {
            "pending_steps": [step.pending for step in self._pending_steps],
            "metrics": self._metrics.state_dict(trainer, names),
            "left": remaining_work(trainer) if names and trainer is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: MutableMapping[str, Any], state: Mapping[str, Any]) -> None:
        """Where metrics decide something: run the end of the epoch that Lightning would pass over."""
        left = state.get("left")
        self._left = left if left and resume_at_remaining_work(checkpoint, left) else None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the rest from a checkpoint, once the schedulers are taken over; one that is new owes nothing."""
        self._metrics.load_state_dict(state["metrics"])
        for step, was_owed in zip(self._pending_steps, state["pending_steps"], strict=False):
            step.pending = was_owed

    def close(self) -> None:
        """Give the schedulers back."""
        for step in self._pending_steps:
            step.close()
        self._pending_steps = []
