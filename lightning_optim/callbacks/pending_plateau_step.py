"""ReduceLROnPlateau under Lightning: a step that a checkpoint comes before is made up for after the resume.

Lightning steps it after it has written the checkpoint of that moment, and not at all at the end of the first epoch
after a resume: the lr is then off its curve for good (Lightning #7877, #14702).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from torch.optim.lr_scheduler import LRScheduler

from .lightning_internals import is_accumulating
from .logged_metrics import LoggedMetrics

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import LRSchedulerConfig


class PendingPlateauStep:
    """Watches one scheduler's steps.

    Args:
        config: Lightning's, of a scheduler that waits for a plateau.
        trainer: every rank steps it with rank zero's metric: otherwise replicas would go on with lrs of their own.
    """

    def __init__(self, config: LRSchedulerConfig, trainer: Trainer) -> None:
        self.config = config
        self.pending = False
        """Whether it is due, and has not been taken."""
        self._trainer = trainer
        self._class = type(config.scheduler)
        self._own_step: Any = self._class.step
        # On the class, for torch's schedulers save whatever stands on the instance; it keeps its name.
        tapped = type(self._class.__name__, (self._class,), {"step": self._step})
        config.scheduler.__class__ = tapped

    def after_batch(self, batch_idx: int) -> None:
        """What interval `step` owes after a batch; Lightning takes it a moment later."""
        accumulating = is_accumulating(self._trainer)
        if self.config.interval == "step" and not accumulating and (batch_idx + 1) % self.config.frequency == 0:
            self.pending = True

    def after_epoch(self, epoch: int) -> None:
        """What interval `epoch` owes after an epoch; Lightning takes it a moment later, or not at all."""
        if self.config.interval == "epoch" and (epoch + 1) % self.config.frequency == 0:
            self.pending = True

    def flush(self, metrics: LoggedMetrics) -> None:
        """Take the step that is owed.

        Raises:
            ConfigError: nothing logs the metric.
        """
        if not self.pending:
            return
        self.pending = False
        value = metrics.require(self._trainer, str(self.config.monitor), "scheduler.monitor")
        if value is not None:
            self._own_step(self.config.scheduler, value)

    def close(self) -> None:
        """Give the scheduler its class back."""
        self.config.scheduler.__class__ = self._class

    @property
    def _step(self) -> Any:
        def step(scheduler: LRScheduler, metrics: Any = None, *args: Any) -> None:
            self.pending = False
            value = metrics if metrics is None else self._trainer.strategy.broadcast(float(metrics))
            self._own_step(scheduler, value, *args)

        return step
