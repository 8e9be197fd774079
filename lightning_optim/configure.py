"""Where the factories meet a LightningModule: its `configure_optimizers`, and the length of its run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.connectors.data_connector import (
    _parse_num_batches,
    _process_dataloader,
    _request_dataloader,
)
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.nn.parallel import DistributedDataParallel

from .announce import announce
from .errors import ConfigError
from .factory import OptimizerFactory
from .schedule.by_group import VARIATION
from .schedule.factory import SchedulerFactory

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch.optim import Optimizer

# Lightning overwrites the limits that tell the real length: the schedule stays at its beginning.
_LENGTH_OF_A_FAST_DEV_RUN = 1_000_000


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
    _check_made("optimizer", optimizer, OptimizerFactory)
    trainable = sum(p.requires_grad for p in module.parameters())
    plan = optimizer.plan(module)
    built = optimizer.build(plan)
    if module._trainer is not None:
        _check_evaluations(built, module.trainer)
    announce(built, plan.table())
    if trainable != sum(p.requires_grad for p in module.parameters()) and module._trainer is not None:
        rebuild_reducer(module.trainer)
    driving = scheduler_config(built, scheduler, lambda interval: run_length(module.trainer, interval))
    return {"optimizer": built} if driving is None else {"optimizer": built, "lr_scheduler": driving}


def scheduler_config(
    optimizer: Optimizer, scheduler: SchedulerFactory | None, length: Callable[[str], int]
) -> dict[str, Any] | None:
    """Lightning's scheduler dict for an optimizer of ours; None where every lr is constant.

    Args:
        optimizer: what it drives.
        scheduler: None for a constant lr, where no rule has a schedule of its own.
        length: how many `step`s or `epoch`s the run has, for a schedule that needs to know.

    Raises:
        ConfigError: what the scheduler's factory raises, or `length`.
    """
    if scheduler is None:
        if all(VARIATION not in group for group in optimizer.param_groups):
            return None
        scheduler = SchedulerFactory("constant", factor=1.0)
    _check_made("scheduler", scheduler, SchedulerFactory)
    total = length(scheduler.interval) if scheduler.needs_total_steps_for(optimizer) else None
    return scheduler.config(optimizer, total)


def run_length(trainer: Trainer, interval: str, key: str = "scheduler.total_steps", instead: str = "") -> int:
    """How many optimizer steps, or epochs, the trainer is set to run.

    Args:
        trainer: as it is before its loaders are there.
        interval: `step` or `epoch`.
        key: what asks, for errors.
        instead: what to type where it cannot be known; by default `key` itself.

    Raises:
        ConfigError: the trainer has no end, or its loader no length.
    """
    if getattr(trainer, "fast_dev_run", 0):
        return _LENGTH_OF_A_FAST_DEV_RUN
    instead = instead or f"Type {key}"
    max_steps = trainer.max_steps if interval == "step" and trainer.max_steps > 0 else math.inf
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        if math.isfinite(max_steps):
            return int(max_steps)
        raise ConfigError(f"{key}: the trainer has no end to take it from. {instead}, or trainer.max_epochs")
    if interval == "epoch":
        return trainer.max_epochs
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ConfigError(f"{key}: a GradientAccumulationScheduler changes the steps of an epoch. {instead}")
    batches = _batches_per_epoch(trainer)
    if math.isinf(batches) and math.isinf(max_steps):
        raise ConfigError(f"{key}: the training loader has no length to take it from. {instead}, or trainer.max_steps")
    if math.isinf(batches):
        return int(max_steps)
    return int(min(max_steps, trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches)))


def rebuild_reducer(trainer: Trainer) -> None:
    """DDP averages the gradients of what was trainable when it was built: build it over what is trainable now."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.model.module
        strategy.configure_ddp()


def _batches_per_epoch(trainer: Trainer) -> float:
    """Batches per rank and epoch, from a loader made for it: the trainer's own must not be there before a restore."""
    loader = _request_dataloader(trainer.fit_loop._data_source)
    combined = loader if isinstance(loader, CombinedLoader) else CombinedLoader(loader, "max_size_cycle")
    lengths = []
    for part in combined.flattened:
        part = _process_dataloader(trainer, TrainerFn.FITTING, RunningStage.TRAINING, part)
        length = sized_len(part)
        limit = trainer.limit_train_batches
        lengths.append(_parse_num_batches(RunningStage.TRAINING, float("inf") if length is None else length, limit))
    return min(lengths) if combined._mode == "min_size" else max(lengths)


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


def _check_made(key: str, factory: Any, cls: type) -> None:
    if isinstance(factory, cls):
        return
    if getattr(factory, "func", None) is cls:
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type _partial_: false")
    if isinstance(factory, Mapping):
        hint = "instantiate it first: hydra.utils.instantiate(cfg)"
    else:
        hint = f"type _target_: lightning_optim.{cls.__name__} in the config"
    raise ConfigError(f"{key}: got a {type(factory).__name__}, not a {cls.__name__}; {hint}")
