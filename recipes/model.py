"""The network that the recipes train: a small convolutional backbone with BatchNorm, and a head."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_optim import OptimizerFactory, SchedulerFactory, configure_optimizers

from .digits import CLASSES


class DigitsNet(LightningModule):
    """Classifies 8 × 8 images.

    Args:
        width: channels of the first convolution; the next two have twice and four times as many.
        dropout: between backbone and head.
        optimizer: builds the optimizer.
        scheduler: builds the schedule; None for a constant lr.
    """

    def __init__(
        self, width: int, dropout: float, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Sequential(
            *_block(1, width), *_block(width, 2 * width, stride=2), *_block(2 * width, 4 * width),
            nn.AvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * width, CLASSES))
        self.accuracy = nn.ModuleDict(
            {split: MulticlassAccuracy(CLASSES, average="micro") for split in ("val", "test")}
        )

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 1, 8, 8)` → logits `(n, 10)`."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the validation images."""
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the test images."""
        self._evaluate("test", batch)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule as configured."""
        return configure_optimizers(self, self.hparams["optimizer"], self.hparams["scheduler"])

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        accuracy = self.accuracy[split]
        assert isinstance(accuracy, MulticlassAccuracy)
        accuracy(self(images), labels)
        self.log(f"{split}/accuracy", accuracy, prog_bar=True)

    @torch.no_grad()
    def copy_backbone_from(self, other: DigitsNet) -> None:
        """Copy the weights and running statistics of another network's backbone."""
        self.backbone.load_state_dict(other.backbone.state_dict())


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    # Strides instead of max pooling: its gradient is not deterministic on a GPU.
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
