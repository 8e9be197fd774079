"""The same runs with torch alone: its classes, and a callback that thaws the backbone by `add_param_group`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from .model import Net
from .setups import GAMMA, LR_SCALE, PLATEAU, WEIGHT_DECAY, Setup


def configure(module: Net, setup: Setup, *, staged: bool) -> Any:
    """What `configure_optimizers` returns; of a staged run, over the head only."""
    if staged:
        module.backbone.requires_grad_(False)
    params = [p for p in module.parameters() if p.requires_grad or not (staged or setup.trainable_only)]
    groups = list(_groups(params, setup.lr))
    optimizer: torch.optim.Optimizer
    if setup.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    else:
        optimizer = torch.optim.SGD(groups, momentum=0.875, weight_decay=WEIGHT_DECAY, fused=True)
    config: dict[str, Any]
    if setup.schedule == "on plateau":
        scheduler = ReduceLROnPlateau(optimizer, **PLATEAU)
        config = {"scheduler": scheduler, "monitor": "val/jumping", "interval": "epoch"}
    else:
        config = {"scheduler": ExponentialLR(optimizer, GAMMA), "interval": setup.schedule.removeprefix("by ")}
    return {"optimizer": optimizer, "lr_scheduler": config}


def _groups(params: Iterable[Tensor], lr: float) -> Iterator[dict[str, Any]]:
    """Weights, then biases and norms, which are not decayed."""
    params = list(params)
    yield {"params": [p for p in params if p.ndim > 1], "lr": lr, "weight_decay": WEIGHT_DECAY}
    yield {"params": [p for p in params if p.ndim <= 1], "lr": lr, "weight_decay": 0.0}


class ThawBackbone(Callback):
    """Adds the backbone to the optimizer at an epoch or step, at its part of the head's lr.

    torch's ExponentialLR and ReduceLROnPlateau multiply whatever lr a group has, so both go on as they are.
    """

    def __init__(self, at: dict[str, int]) -> None:
        self.at = at
        self.is_thawed = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before a checkpoint's optimizers are loaded: they hold the groups of the thaw."""
        if self.is_thawed:
            self._thaw(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The BatchNorm of a frozen backbone uses its running statistics and leaves them alone."""
        if not self.is_thawed:
            _backbone(pl_module)[1].eval()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thaw if it is time."""
        self._thaw_if_due(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Thaw if it is time: an epoch that is resumed inside has no start."""
        self._thaw_if_due(trainer, pl_module)

    def _thaw_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if not self.is_thawed and all(position[unit] >= number for unit, number in self.at.items()):
            self._thaw(trainer, pl_module)
            self.is_thawed = True
            _backbone(pl_module)[1].train()

    def _thaw(self, trainer: Trainer, module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        backbone = _backbone(module)
        backbone.requires_grad_(True)
        for group in _groups(backbone.parameters(), optimizer.param_groups[0]["lr"] * LR_SCALE):
            optimizer.add_param_group(group)

    def state_dict(self) -> dict[str, Any]:
        """Whether it has thawed."""
        return {"is_thawed": self.is_thawed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.is_thawed = state_dict["is_thawed"]


class MissedPlateauStep(Callback):
    """Takes the step of ReduceLROnPlateau that Lightning loses at a resume (#7877, #14702)."""

    def __init__(self) -> None:
        self.num_due = 0
        """The epochs with all their batches so far: Lightning takes no step after another one."""
        self.metric: float | None = None
        """Of the last validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checkpoints may be written from here on."""
        self.metric = float(trainer.callback_metrics["val/jumping"])
        self._count(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed epoch may have no validation."""
        self._count(trainer)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Once an epoch has ended, its step is due."""
        self._step(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """That of the last epoch too."""
        self._step(trainer)

    def _count(self, trainer: Trainer) -> None:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch or progress.current.ready == trainer.num_training_batches:
            self.num_due = trainer.lr_scheduler_configs[0].scheduler.last_epoch + 1

    def _step(self, trainer: Trainer) -> None:
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        if scheduler.last_epoch < self.num_due and self.metric is not None:
            scheduler.step(self.metric)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The metric, and the steps that are due."""
        return {"num_due": self.num_due, "metric": self.metric}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.num_due, self.metric = state_dict["num_due"], state_dict["metric"]


class SavedGenerator(Callback):
    """torch's random generator, which Lightning does not save."""

    def __init__(self) -> None:
        self._loaded: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what a checkpoint holds."""
        if self._loaded is not None:
            torch.set_rng_state(self._loaded)

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        return {"state": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored when the training starts."""
        self._loaded = state_dict["state"]


def _backbone(module: LightningModule) -> nn.Sequential:
    assert isinstance(module, Net)
    return module.backbone
