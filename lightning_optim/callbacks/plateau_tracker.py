"""Feeds logged metrics to what waits for a plateau in a fit: the triggers of stages, and ReduceLROnPlateau."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..core.later_release import refuse_unknown
from ..stages.timetable import Timetable
from .lightning_internals import (
    current_batch,
    has_run_all_batches,
    has_validated_all_batches,
    is_between_batch_and_validation,
    is_ending_epoch,
    metrics_of_epoch,
    skip_remaining_batches,
    stop_skipping_batches,
    total_batches,
)
from .logged_metrics import LoggedMetrics
from .pending_plateau_step import PendingPlateauStep
from .rank_gather import RankGather
from .remaining_work import EPOCH_END, VALIDATION, find_remaining_work, resume_at_remaining_work
from .saved_loops import resume_at_epoch_start

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_STATE_KEYS = ("pending_steps", "metrics", "remaining")


class PlateauTracker:
    """Feeds metrics to plateaus and schedulers at the same moments in an uninterrupted run and in a resumed one."""

    def __init__(self) -> None:
        self._metrics = LoggedMetrics()
        self._pending_steps: list[PendingPlateauStep] = []
        self._timetable = Timetable()
        self._monitors: frozenset[str] = frozenset()
        """The metrics that schedulers and stages wait for."""
        self._validation_began = self._validation_ended = -1
        """After which batch of the run."""
        self._ended_epoch: int | None = None
        """The last epoch whose end has been seen."""
        self._resumed_at: str | None = None
        """What remained to be run when the checkpoint was saved that this run has resumed from."""
        self._ranks: RankGather | None = None
        self._stopped_at: Callable[[], dict[str, Any]] | None = None
        """Gives the state when an exception has stopped the run; None while it goes on."""

    @property
    def has_schedulers(self) -> bool:
        """Whether a scheduler waits for a plateau."""
        return bool(self._pending_steps)

    def start(self, trainer: Trainer, timetable: Timetable) -> None:
        """Track the plateaus of the stages and the trainer's ReduceLROnPlateau schedulers.

        Under manual optimization, the module steps the schedulers.
        """
        self._timetable = timetable
        if trainer.lightning_module.automatic_optimization:
            configs = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
            self._pending_steps = [PendingPlateauStep(config, trainer) for config in configs]
        plateaus = (plateau for stage in timetable.stages for plateau in stage.trigger.plateaus)
        self._monitors = frozenset((*self._scheduler_monitors, *(plateau.monitor for plateau in plateaus)))
        self._ranks = RankGather(trainer) if self._monitors else None

    def on_train_start(self, trainer: Trainer) -> None:
        """Restore the metrics and the position of a loaded checkpoint."""
        self._metrics.restore(trainer)
        if self._resumed_at == EPOCH_END:
            skip_remaining_batches(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Take the steps that were pending in a checkpoint of a run that had nothing left to train."""
        self._metrics.restore(trainer)
        self.step_schedulers("epoch", "step")

    def after_batch(self, trainer: Trainer, batch_idx: int) -> None:
        """Find out which schedulers are due after this batch."""
        if not self._monitors:
            return
        self._metrics.after_batch(trainer, self._monitors)
        for step in self._pending_steps:
            step.after_batch(batch_idx)

    def before_validation(self, trainer: Trainer) -> None:
        """Remember the metrics before a validation."""
        self._validation_began = total_batches(trainer)
        self._metrics.before_validation(trainer)

    def after_validation(self, trainer: Trainer) -> None:
        """Mark the plateaus whose metric this validation has logged."""
        self._validation_ended = total_batches(trainer)
        logged = self._metrics.after_validation(trainer)
        for plateau in self._timetable.watched:
            plateau.pending |= plateau.monitor in logged

    def after_epoch(self, trainer: Trainer) -> None:
        """Mark the plateaus whose metric training logs, and find out which schedulers are due after this epoch."""
        if self._resumed_at == EPOCH_END:
            stop_skipping_batches(trainer)
        self._resumed_at, self._ended_epoch = None, trainer.current_epoch
        self._metrics.after_epoch(trainer)
        if has_run_all_batches(trainer):
            for step in self._pending_steps:
                step.after_epoch(trainer.current_epoch)
        for plateau in self._timetable.watched:
            plateau.pending |= not self._metrics.is_from_validation(plateau.monitor)

    def step_schedulers(self, *intervals: str) -> None:
        """Take the pending steps of schedulers with these intervals.

        Raises:
            ConfigError: nothing logs a scheduler's metric.
        """
        for step in self._pending_steps:
            if step.config.interval in intervals:
                step.flush(self._metrics)

    def observe_metrics(self, trainer: Trainer) -> None:
        """Pass new values to the plateaus that are due.

        Raises:
            ConfigError: nothing logs a plateau's metric.
        """
        for plateau in self._timetable.watched:
            if plateau.pending:
                plateau.observe(self._metrics.require(trainer, plateau.monitor, plateau.key))

    def stop(self, trainer: Trainer) -> None:
        """Store where an exception has stopped the run, for checkpoints that other callbacks write because of it."""
        steps = self._pending_steps
        remaining, pending = self._find_remaining(trainer), [step.pending for step in steps]
        if self._monitors and is_ending_epoch(trainer) and self._is_missing_epoch_metrics(trainer):
            # The module has not logged them yet: run the hooks at the end of the epoch again.
            remaining = EPOCH_END
            pending = [step.pending and step.config.interval != "epoch" for step in steps]
        state: dict[str, Any] = {"pending_steps": pending, "remaining": remaining}
        names = self._waited_for()
        if trainer.world_size == 1:
            state["metrics"] = self._metrics.state_dict(trainer, names)
            self._stopped_at = lambda: state
        else:  # only if a checkpoint is written do all ranks take part in gathering the metrics
            ranks, self._ranks = self._ranks, None
            gather = None if ranks is None else ranks.gather
            self._stopped_at = lambda: {**state, "metrics": self._metrics.state_dict(trainer, names, gather)}

    def state_dict(self, trainer: Trainer | None) -> dict[str, Any]:
        """The pending steps, the metrics that something waits for, and what remains to be run before the next batch.

        Args:
            trainer: None outside a fit.
        """
        if self._stopped_at is not None:
            return self._stopped_at()
        remaining = None if trainer is None else self._find_remaining(trainer)
        return {
            "pending_steps": [step.pending for step in self._pending_steps],
            "metrics": self._metrics.state_dict(trainer, self._waited_for()),
            "remaining": remaining,
        }

    @property
    def _scheduler_monitors(self) -> list[str]:
        return [str(step.config.monitor) for step in self._pending_steps]

    def _waited_for(self) -> set[str]:
        """The metrics that schedulers, and stages that have not thawed, wait for."""
        waiting = (plateau for stage in self._timetable.waiting for plateau in stage.trigger.plateaus)
        return {*self._scheduler_monitors, *(plateau.monitor for plateau in waiting)}

    def _find_remaining(self, trainer: Trainer) -> str | None:
        """What remains to be run, after making up for hooks of ours that callbacks before this one have prevented."""
        names = self._waited_for()
        if not names:
            return None
        if is_between_batch_and_validation(trainer):
            self.after_batch(trainer, current_batch(trainer))
        elif trainer.validating and self._validation_ended != total_batches(trainer):
            if not self._has_validated(trainer, names):
                return VALIDATION  # from its first batch: Lightning saves no metric of the batches so far
            self.after_validation(trainer)
        elif is_ending_epoch(trainer) and self._ended_epoch != trainer.current_epoch:
            self.after_epoch(trainer)
        return find_remaining_work(trainer)

    def _has_validated(self, trainer: Trainer, names: Collection[str]) -> bool:
        """Whether the current validation has logged all that something waits for."""
        has_begun = self._validation_began == total_batches(trainer)
        return has_begun and has_validated_all_batches(trainer) and self._metrics.has_validated(trainer, names)

    def _is_missing_epoch_metrics(self, trainer: Trainer) -> bool:
        """Whether something waits for a metric that `on_train_epoch_end` of the module has yet to log."""
        logged = metrics_of_epoch(trainer)
        return any(name not in logged and not self._metrics.is_from_validation(name) for name in self._waited_for())

    def on_load_checkpoint(self, checkpoint: MutableMapping[str, Any], state: Mapping[str, Any]) -> None:
        """If something waits for a metric, let Lightning run the end of the epoch that it would skip."""
        resume_at_epoch_start(checkpoint)
        self._resumed_at = state.get("remaining")
        if self._resumed_at:
            resume_at_remaining_work(checkpoint, self._resumed_at)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state once the schedulers are taken over; a new scheduler has no pending step.

        Raises:
            ConfigError: a later release has saved it.
        """
        refuse_unknown(state, _STATE_KEYS, "plateaus")
        self._metrics.load_state_dict(state["metrics"])
        for step, pending in zip(self._pending_steps, state["pending_steps"], strict=False):
            step.pending = pending

    def close(self) -> None:
        """Restore the schedulers' classes, and remove the process group if no exception needs it."""
        if self._ranks is not None:
            self._ranks.close()
        self._ranks = None
        for step in self._pending_steps:
            step.close()
        self._pending_steps = []
