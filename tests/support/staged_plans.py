"""A network with three layers that logs metrics everywhere, unfreeze plans for it, and when their stages thaw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.training import Loader, Net, StepTrace

HEAD = {"params": "head"}
REST = {"params": "backbone", "at": {"after": {"steps": 1}}}
"""One step after the stage above."""
FLAT_METRICS = ["train/flat", "train/flat_mean", "end/flat", "val/flat"]
"""They never improve."""


class Backbone(nn.Module):
    """A stem and three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.layer = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        for layer in self.layer:
            hidden = layer(hidden)
        return hidden


def jumping(value: Tensor) -> Tensor:
    """A metric that improves and gets worse, and changes with every bit of `value`."""
    return torch.sin(1000 * value.detach())


class DeepNet(Net):
    """Logs, at every place where metrics are logged, one metric that jumps and one that never improves."""

    def __init__(self, optimizer: OptimizerFactory | None = None, schedule: str | None = None) -> None:
        factory = optimizer or OptimizerFactory("adamw", lr=0.01)
        scheduler = SchedulerFactory(schedule) if schedule else None
        super().__init__(lambda module: configure_optimizers(module, factory, scheduler), dropout=0.3)
        self.backbone = Backbone()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"train/loss": jumping(loss), "train/flat": 1.0})
        self.log_dict({"train/mean": jumping(loss), "train/flat_mean": 1.0}, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict({"end/size": jumping(self.head.weight.square().sum()), "end/flat": 1.0})

    def val_dataloader(self) -> Any:
        return Loader(1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"val/loss": jumping(loss), "val/flat": 1.0})


def on_plateau(monitor: str, patience: int = 1, **options: Any) -> dict[str, Any]:
    return {"plateau": {"monitor": monitor, "patience": patience, **options}}


def layers(**options: Any) -> dict[str, Any]:
    """A stage of the three layers."""
    return {"layers": "backbone.layer.{i}", **options}


def unfreeze(**stages: Any) -> StagedUnfreeze:
    """The head from the start, then these stages."""
    return StagedUnfreeze({"head": HEAD, **stages})


def thaw_steps(trace: StepTrace) -> dict[str, int]:
    """By group, in the order of the last step: the number of optimizer steps before it joined."""
    return {name: next(t for t, groups in enumerate(trace.steps) if name in groups) for name in trace.steps[-1]}
