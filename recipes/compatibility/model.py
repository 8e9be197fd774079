"""A network with backbone and head, and a loader that resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

BATCHES = 4
"""Per epoch."""
BATCH_SIZE = 4
LR = 0.0625


class Loader:
    """Batches in an order that depends only on the epoch; its state is the position.

    Args:
        batch_size: of the `BATCHES * BATCH_SIZE` rows; those that do not fill a batch are left out.
    """

    def __init__(self, batch_size: int = BATCH_SIZE) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(BATCHES * BATCH_SIZE, 4, generator=generator).split(batch_size)  # type: ignore[no-untyped-call]
        self.targets = torch.randint(0, 3, (BATCHES * BATCH_SIZE,), generator=generator).split(batch_size)  # type: ignore[no-untyped-call]
        self.epoch = self.batch = 0
        self.batch_sampler = SimpleNamespace(sampler=self)  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        return len(self.inputs)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        for index in order[self.batch :]:
            self.batch += 1
            yield self.inputs[index], self.targets[index]

    def state_dict(self) -> dict[str, int]:
        """The position; Lightning saves it."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the position."""
        self.epoch, self.batch = state["epoch"], state["batch"]


class Net(LightningModule):
    """Has BatchNorm and dropout, and logs a metric that changes with every bit of the weights.

    Args:
        configure: its `configure_optimizers`.
        lr: what a LearningRateFinder changes.
        batch_size: what a BatchSizeFinder changes.
    """

    def __init__(self, configure: Callable[[Net], Any], lr: float = LR, batch_size: int = BATCH_SIZE) -> None:
        super().__init__()
        self.configure, self.lr, self.batch_size = configure, lr, batch_size
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
        self.dropout = nn.Dropout(0.25)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(self.dropout(self.backbone(inputs)))
        return output

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"val/jumping": torch.sin(1000 * loss), "val/flat": 1.0})

    def train_dataloader(self) -> Loader:
        return Loader(self.batch_size)

    def val_dataloader(self) -> Loader:
        return Loader(BATCHES * BATCH_SIZE)

    def configure_optimizers(self) -> Any:
        return self.configure(self)
