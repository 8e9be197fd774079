"""A trainer's optimizers with their groups split by stage, and their schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ..core.errors import ConfigError
from ..stages.scheduler_proxy import by_optimizer, drives
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def split_optimizers(trainer: Trainer, module: nn.Module, stages: Sequence[Stage]) -> list[StagedOptimizer]:
    """The trainer's optimizers, split by stage; their schedulers drive the proxies from now on.

    Raises:
        ConfigError: a parameter belongs to no stage, or an optimizer or a scheduler cannot be split.
    """
    schedulers = by_optimizer([config.scheduler for config in trainer.lr_scheduler_configs], trainer.optimizers)
    return [
        StagedOptimizer(optimizer, module, stages, own)
        for optimizer, own in zip(trainer.optimizers, schedulers, strict=True)
    ]


def check_schedulers_follow(trainer: Trainer, optimizers: Sequence[StagedOptimizer]) -> None:
    """Raises a ConfigError if a callback has replaced a scheduler by one that drives an optimizer directly."""
    for config in trainer.lr_scheduler_configs:
        if any(drives(config.scheduler, staged.optimizer) for staged in optimizers):
            raise ConfigError(
                f"stages: a callback has replaced the scheduler by its own {type(config.scheduler).__name__}, "
                "which groups that join later cannot follow. Remove that callback, or train without stages"
            )
