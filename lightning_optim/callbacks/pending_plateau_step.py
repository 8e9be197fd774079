"""Makes up for a ReduceLROnPlateau step that Lightning skips because a checkpoint was written just before it.

Lightning steps such a scheduler after it has written the checkpoint of that moment, and not at all at the end of the
first epoch after a resume: without this, the lr stays off its curve (Lightning #7877, #14702).
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
    """Tracks whether a step of one ReduceLROnPlateau scheduler is due, and takes it if Lightning has not.

    Args:
        config: Lightning's config of the scheduler.
        trainer: every rank steps the scheduler with rank zero's metric: otherwise the replicas' lrs would diverge.
    """

    def __init__(self, config: LRSchedulerConfig, trainer: Trainer) -> None:
        self.config = config
        self.pending = False
        """Whether a step is due that has not been taken."""
        self._trainer = trainer
        self._original_class = type(config.scheduler)
        self._original_step: Any = self._original_class.step
        # By a subclass of the same name: torch's schedulers save every attribute of the instance.
        subclass = type(self._original_class.__name__, (self._original_class,), {"step": self._build_step()})
        config.scheduler.__class__ = subclass

    def after_batch(self, batch_idx: int) -> None:
        """With interval `step`, a step is due after this batch; Lightning takes it a moment later."""
        accumulating = is_accumulating(self._trainer)
        if self.config.interval == "step" and not accumulating and (batch_idx + 1) % self.config.frequency == 0:
            self.pending = True

    def after_epoch(self, epoch: int) -> None:
        """With interval `epoch`, a step is due after this epoch; Lightning takes it a moment later, or never."""
        if self.config.interval == "epoch" and (epoch + 1) % self.config.frequency == 0:
            self.pending = True

    def flush(self, metrics: LoggedMetrics) -> None:
        """Take the pending step, if there is one.

        Raises:
            ConfigError: nothing logs the scheduler's metric, and Lightning's `strict` is not False.
        """
        if not self.pending:
            return
        self.pending = False
        monitor = str(self.config.monitor)
        if self.config.strict:
            value = metrics.require(self._trainer, monitor, "scheduler.monitor")
        else:
            value = metrics.read(self._trainer, monitor)  # Lightning has warned where it is None
        if value is not None:
            self._original_step(self.config.scheduler, value)

    def close(self) -> None:
        """Restore the scheduler's class."""
        self.config.scheduler.__class__ = self._original_class

    def _build_step(self) -> Any:
        def step(scheduler: LRScheduler, metrics: Any = None, *args: Any) -> None:
            self.pending = False
            value = metrics if metrics is None else self._trainer.strategy.broadcast(float(metrics))
            self._original_step(scheduler, value, *args)

        return step
