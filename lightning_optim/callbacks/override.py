"""OptimizerOverride: a configured optimizer for a LightningModule whose code cannot be changed."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer

from ..build.factory import OptimizerFactory
from ..build.read_factory import read_factory
from ..core.errors import checks_arguments
from ..core.hyperparameters import Flag
from ..core.short_repr import format_call
from ..schedule.factory import SchedulerFactory
from .configure import configure_optimizers
from .configure_hook import ConfigureOptimizersHook
from .resumed_epoch import ResumedEpochCallback
from .verify_checkpoint import OPTION, VerifyCheckpointHook


class OptimizerOverride(ResumedEpochCallback):
    """Replaces the `configure_optimizers` of the trained module for the duration of a fit.

    The module must define one, since Lightning looks for it before it calls any callback. If you can change the module,
    write `return configure_optimizers(self, ...)` in it instead.

    Args:
        optimizer: builds the optimizer from the module.
        scheduler: builds the schedule; None for a constant lr.
        verify_checkpoints: False: load a checkpoint without a check of its checksums and contents.

    Examples:
        >>> callback = OptimizerOverride(OptimizerFactory("adamw", lr=3e-4))
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(
        self,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        *,
        verify_checkpoints: bool = True,
    ) -> None:
        self.optimizer = read_factory("optimizer", optimizer, OptimizerFactory)
        self.scheduler = None if scheduler is None else read_factory("scheduler", scheduler, SchedulerFactory)
        self.verify_checkpoints: bool = Flag(default=True).check(verify_checkpoints, OPTION)

    def __repr__(self) -> str:
        options = {} if self.verify_checkpoints else {OPTION: False}
        factories = [self.optimizer] if self.scheduler is None else [self.optimizer, self.scheduler]
        return format_call(self, *factories, **options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the override before the strategy calls `configure_optimizers`."""
        VerifyCheckpointHook.install(trainer)
        if stage == "fit":
            ConfigureOptimizersHook.install(trainer, pl_module).replace(
                lambda: configure_optimizers(pl_module, self.optimizer, self.scheduler)
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's own `configure_optimizers`."""
        VerifyCheckpointHook.remove(trainer)
        ConfigureOptimizersHook.remove(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore it after an error too: Lightning calls no teardown then."""
        VerifyCheckpointHook.remove(trainer)
        ConfigureOptimizersHook.remove(trainer)
