"""A trainer's optimizers with their groups split by stage, and their schedulers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from lightning.pytorch.callbacks import BaseFinetuning, StochasticWeightAveraging
from torch import nn
from torch.optim import Optimizer

from ..core.errors import ConfigError
from ..stages.scheduler_proxy import by_optimizer, drives
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SPLIT: WeakSet[Optimizer] = WeakSet()
"""The optimizers that fits have split."""


def check_not_split(configured: Any) -> None:
    """Check what `configure_optimizers` has returned.

    Raises:
        ConfigError: it is an optimizer that an earlier fit has split: with other groups, and with scaled lrs.
    """
    if any(optimizer in _SPLIT for optimizer in find_optimizers(configured)):
        raise ConfigError(
            "stages: configure_optimizers has returned an optimizer of an earlier fit, whose groups are already split "
            "by stage. Build it and its scheduler anew in each call, for example torch.optim.AdamW(self.parameters())"
        )


def find_optimizers(configured: Any) -> Iterator[Optimizer]:
    """The optimizers in what `configure_optimizers` has returned."""
    if isinstance(configured, Optimizer):
        yield configured
    elif isinstance(configured, (Mapping, list, tuple)):
        for value in configured.values() if isinstance(configured, Mapping) else configured:
            yield from find_optimizers(value)


def split_optimizers(trainer: Trainer, module: nn.Module, stages: Sequence[Stage]) -> list[StagedOptimizer]:
    """The trainer's optimizers, split by stage; their schedulers drive the proxies from now on.

    Raises:
        ConfigError: a parameter belongs to no stage, or an optimizer or a scheduler cannot be split.
    """
    _SPLIT.update(trainer.optimizers)
    schedulers = by_optimizer([config.scheduler for config in trainer.lr_scheduler_configs], trainer.optimizers)
    return [
        StagedOptimizer(optimizer, module, stages, own)
        for optimizer, own in zip(trainer.optimizers, schedulers, strict=True)
    ]


def check_callbacks(trainer: Trainer) -> None:
    """Raises a ConfigError if a callback of the trainer has a plan of its own for the parameters or for the lrs."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    for callback in callbacks:
        if isinstance(callback, BaseFinetuning):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} freezes parameters and adds their groups itself, which "
                "StagedUnfreeze would undo. Replace the callback by a stage that thaws the same parameters, or train "
                "without stages: unfreeze=none"
            )
        if isinstance(callback, StochasticWeightAveraging):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} replaces the scheduler by its own in the middle of the "
                "run, which groups that join later cannot follow. Use WeightAveraging or EMAWeightAveraging, or train "
                "without stages: unfreeze=none"
            )


def check_schedulers_follow(trainer: Trainer, optimizers: Sequence[StagedOptimizer]) -> None:
    """Raises a ConfigError if a callback has replaced a scheduler by one that drives an optimizer directly."""
    for config in trainer.lr_scheduler_configs:
        if any(drives(config.scheduler, staged.optimizer) for staged in optimizers):
            raise ConfigError(
                f"stages: a callback has replaced the scheduler by its own {type(config.scheduler).__name__}, "
                "which groups that join later cannot follow. Remove that callback, or train without stages"
            )
