"""`configure_optimizers`: builds the optimizer and the scheduler of a LightningModule from the factories."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..build.executions import plan_executions
from ..build.factory import OptimizerFactory
from ..build.optimizer import build_optimizer
from ..build.read_factory import read_factory
from ..build.scheduler_config import scheduler_config
from ..build.stage_optimizers import plan_with_stages
from ..core.errors import ConfigError
from ..schedule.factory import SchedulerFactory
from .lightning_internals import attached_trainer, load_optimizer_states_by_name
from .modifier_checks import check_modifiers
from .print_table import print_table
from .run_length import get_position, get_run_length, get_steps_per_epoch
from .strategies import check_strategy_for_factory, rebuild_ddp_reducer
from .suggested_lr import apply_suggestion
from .tuner_hook import hook_tuners
from .unfreeze import StagedUnfreeze

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from ..stages.stages import Stage


def configure_optimizers(
    module: LightningModule,
    optimizer: OptimizerFactory | Mapping[str, Any],
    scheduler: SchedulerFactory | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a LightningModule's `configure_optimizers` has to return; prints the group table on rank zero.

    A schedule that needs the length of the run takes it from its config, else from the trainer: the smaller of
    `max_steps` and `max_epochs` times the optimizer steps of an epoch. It is never read from
    `trainer.estimated_stepping_batches`, which breaks the mid-epoch resume of a stateful loader (Lightning #20550).

    Args:
        module: the module to train; attached to a trainer if the schedule needs the length of the run.
        optimizer: the factory, which is called with `module`, so that rules see names and classes; or the mapping with
            `class_path` that LightningCLI stores in `self.hparams`.
        scheduler: as `optimizer`; None for a constant lr.

    Returns:
        Lightning's dict: `optimizer`, and `lr_scheduler` if there is a scheduler.

    Raises:
        ConfigError: a factory raises it; the length of the run is unknown; the optimizer takes several gradients a
            step, and the trainer would not compute all of them on the same batch; it has `schedule_free`, and the
            trainer no `EvalWeights`; or the strategy is DeepSpeed's.

    Examples:
        >>> class Net(LightningModule):
        ...     def configure_optimizers(self):
        ...         return configure_optimizers(self, self.hparams.optimizer, self.hparams.scheduler)
    """
    trainer = attached_trainer(module)
    if trainer is not None:
        check_strategy_for_factory(trainer)
    factory = read_factory("optimizer", optimizer, OptimizerFactory)
    num_trainable = _count_trainable(module)
    plan = plan_with_stages(factory, _claimed_stages(trainer), module)
    built = build_optimizer(plan)
    if trainer is not None:
        check_modifiers(built, built.param_groups, trainer)
        hook_tuners(trainer)
        load_optimizer_states_by_name(trainer)
    also = None if scheduler is None else read_factory("scheduler", scheduler, SchedulerFactory).also
    print_table(built, replace(plan_executions(plan), also=also or {}).table())
    apply_suggestion(module, built, next(iter(plan.specs.values())).hyperparameters["lr"])
    # A `frozen: true` rule has changed what DDP has to average.
    if num_trainable != _count_trainable(module) and trainer is not None:
        rebuild_ddp_reducer(trainer)
    if scheduler is not None and getattr(trainer, "fast_dev_run", False):
        scheduler = _for_fast_dev_run(read_factory("scheduler", scheduler, SchedulerFactory))
    config = scheduler_config(
        built,
        scheduler,
        lambda interval: get_run_length(_require(trainer, "scheduler.total_steps: 1000"), interval),
        lambda: get_steps_per_epoch(_require(trainer, "scheduler.warmup_steps: 500")),
        partial(get_position, trainer) if trainer and module.automatic_optimization else None,
    )
    return {"optimizer": built} if config is None else {"optimizer": built, "lr_scheduler": config}


def _require(trainer: Trainer | None, example: str) -> Trainer:
    if trainer is None:
        raise ConfigError(
            f"{example.partition(':')[0]}: the schedule needs the length of the run, and the module is attached to no "
            f"trainer. Type for example {example}, or call configure_optimizers in the module's own"
        )
    return trainer


def _for_fast_dev_run(scheduler: SchedulerFactory) -> SchedulerFactory:
    """The schedule, which accepts a checkpoint of another length: that of a fast dev run is made up."""
    if scheduler.on_resume != "continue":
        return scheduler
    changed = copy(scheduler)
    changed.on_resume = "extend"
    return changed


def _claimed_stages(trainer: Trainer | None) -> list[Stage]:
    """The stages of the trainer's callbacks, with the parameters that they claim in this fit."""
    callbacks = getattr(trainer, "callbacks", [])
    return [stage for callback in callbacks if isinstance(callback, StagedUnfreeze) for stage in callback.stages]


def _count_trainable(module: LightningModule) -> int:
    return sum(p.requires_grad for p in module.parameters())
