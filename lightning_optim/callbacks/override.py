"""A configured optimizer for a LightningModule that nobody may edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from ..schedule.factory import SchedulerFactory
from .configure import configure_optimizers
from .configure_hook import ConfigureOptimizersHook

if TYPE_CHECKING:
    from ..build.factory import OptimizerFactory


class OptimizerOverride(Callback):
    """Replaces the `configure_optimizers` of the module that is trained, while it is trained.

    The module must have one, since Lightning asks for it before any callback; where the module is yours, write
    `return configure_optimizers(self, ...)` in it instead.

    Args:
        optimizer: builds the optimizer from the module.
        scheduler: builds the schedule; None for a constant lr.

    Example:
        >>> callback = OptimizerOverride(OptimizerFactory("adamw", lr=3e-4))
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __init__(self, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None = None) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put ours in place before the strategy asks for the optimizers."""
        if stage == "fit":
            ConfigureOptimizersHook.of(pl_module).replace(
                lambda: configure_optimizers(pl_module, self.optimizer, self.scheduler)
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the module's own back."""
        ConfigureOptimizersHook.undo(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the module's own back: Lightning runs no teardown here."""
        ConfigureOptimizersHook.undo(pl_module)
