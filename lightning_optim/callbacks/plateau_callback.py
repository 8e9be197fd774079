"""`PlateauCallback`: what makes ReduceLROnPlateau resume as it was, where no StagedUnfreeze does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ..stages.timetable import Timetable
from .plateau_tracker import PlateauTracker
from .resumed_epoch import ResumedEpochCallback
from .unfreeze import StagedUnfreeze


class PlateauCallback(ResumedEpochCallback):
    """Saves the metrics that ReduceLROnPlateau waits for, and takes the steps that Lightning skips after a resume.

    Lightning does not step such a scheduler at the end of the first epoch after a resume (Lightning #7877, #14702).
    Idle where the trainer has no such scheduler, or a callback that tracks them already.
    """

    _plateaus: PlateauTracker | None = None
    _trainer: Trainer | None = None

    def prepare_plateaus(self, trainer: Trainer, stage: str) -> None:
        """Begin anew, before the optimizers are built."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        is_tracked = stage != "fit" or any(isinstance(callback, StagedUnfreeze) for callback in callbacks)
        self._trainer = trainer
        self._plateaus = None if is_tracked else PlateauTracker()

    def restore_plateaus(self, state: Mapping[str, Any]) -> None:
        """Restore what `plateau_state` has saved, when the run is about to continue."""
        if self._plateaus is not None:
            self._plateaus.load_state_dict(state)

    def plateau_state(self) -> dict[str, Any] | None:
        """The state to save; None where nothing is tracked."""
        is_tracked = self._plateaus is not None and self._plateaus.has_schedulers
        return self._plateaus.state_dict(self._trainer) if is_tracked and self._plateaus else None

    def close_plateaus(self) -> None:
        """Restore the schedulers, and release the trainer; what `plateau_state` returns after an exception stays."""
        if self._plateaus is not None:
            self._plateaus.close()
        self._trainer = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Track the schedulers, once they are built."""
        if self._plateaus is not None and any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
            self._plateaus.start(trainer, Timetable())
        else:
            self._plateaus = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Store where an exception has stopped the run: a checkpoint may be written after it."""
        if self._plateaus is not None:
            with suppress(RuntimeError):  # from a lost device: it must not hide the exception
                self._plateaus.stop(trainer)
        self.close_plateaus()

    def __getstate__(self) -> dict[str, Any]:
        """The callback as configured: a copy or a pickle has no schedulers of a fit."""
        return {**vars(self), "_plateaus": None, "_trainer": None}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps that were pending in the checkpoint."""
        super().on_train_start(trainer, pl_module)
        if self._plateaus is not None:
            self._plateaus.on_train_start(trainer)
            self._plateaus.step_schedulers("epoch")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps that Lightning has not taken at the end of the last epoch."""
        if self._plateaus is not None:
            self._plateaus.step_schedulers("epoch")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take the steps that Lightning has not taken after the last batch."""
        if self._plateaus is not None:
            self._plateaus.step_schedulers("epoch", "step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Find out which schedulers are due."""
        if self._plateaus is not None:
            self._plateaus.after_batch(trainer, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics before the validation."""
        if self._plateaus is not None and not trainer.sanity_checking:
            self._plateaus.before_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics of the validation."""
        if self._plateaus is not None and not trainer.sanity_checking:
            self._plateaus.after_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out which schedulers are due."""
        if self._plateaus is not None:
            self._plateaus.after_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps of the last epoch."""
        if self._plateaus is not None:
            self._plateaus.step_schedulers("epoch", "step")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps that were pending in a checkpoint of the end of the run."""
        if self._plateaus is not None:
            self._plateaus.on_fit_end(trainer)
