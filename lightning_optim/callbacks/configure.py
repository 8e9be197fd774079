"""`configure_optimizers`: where the factories meet a LightningModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..build.factory import OptimizerFactory
from ..build.optimizer import build_optimizer
from ..build.scheduler_config import check_instantiated, scheduler_config
from ..core.errors import ConfigError
from ..schedule.factory import SchedulerFactory
from .announce import announce
from .lightning_internals import attached_trainer
from .run_length import run_length
from .strategies import rebuild_reducer

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch.optim import Optimizer


def configure_optimizers(
    module: LightningModule,
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None = None,
) -> dict[str, Any]:
    """All that a LightningModule's `configure_optimizers` has to return; prints the group table on rank zero.

    A schedule that needs the length of the run gets it from the config, else from the trainer: the smaller of
    `max_steps` and `max_epochs` times the optimizer steps of an epoch. It is never read from
    `trainer.estimated_stepping_batches`, which breaks the mid-epoch resume of a stateful loader (Lightning #20550).

    Args:
        module: attached to a trainer if the schedule needs one.
        optimizer: called with `module`, so rules see names and classes.
        scheduler: None for a constant lr.

    Raises:
        ConfigError: what the factories raise; the length of the run cannot be known; or the optimizer takes several
            gradients a step, and the trainer would not give it as many of one batch.

    Example:
        >>> class Net(LightningModule):
        ...     def configure_optimizers(self):
        ...         return configure_optimizers(self, self.hparams.optimizer, self.hparams.scheduler)
    """
    check_instantiated("optimizer", optimizer, OptimizerFactory)
    trainable = sum(p.requires_grad for p in module.parameters())
    plan = optimizer.plan(module)
    built = build_optimizer(plan)
    trainer = attached_trainer(module)
    if trainer is not None:
        _check_evaluations(built, trainer)
    announce(built, plan.table())
    if trainable != sum(p.requires_grad for p in module.parameters()) and trainer is not None:
        rebuild_reducer(trainer)
    driving = scheduler_config(built, scheduler, lambda interval: run_length(module.trainer, interval))
    return {"optimizer": built} if driving is None else {"optimizer": built, "lr_scheduler": driving}


def _check_evaluations(optimizer: Optimizer, trainer: Trainer) -> None:
    """Whether a closure gives each of a step's gradients by itself."""
    evaluations = getattr(optimizer, "evaluations", 1)
    if evaluations == 1:
        return
    who = f"{type(optimizer).__name__} takes {evaluations} gradients a step"
    if trainer.accumulate_grad_batches > 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches: {who}, and while gradients accumulate the second would be added to the "
            "first. Type trainer.accumulate_grad_batches=1, or take another optimizer"
        )
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ConfigError(
            f"trainer.precision: {who}, and under a GradScaler Lightning gives it but one. Type "
            "trainer.precision=bf16-mixed, or take another optimizer"
        )
