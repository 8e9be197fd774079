"""The network that the recipes train on digits: a small convolutional backbone with BatchNorm, and a head."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory

from .classifier import Classifier
from .digits import CLASSES


class DigitsNet(Classifier):
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
        super().__init__(CLASSES)
        self.save_hyperparameters()
        self.backbone = nn.Sequential(
            *_block(1, width), *_block(width, 2 * width, stride=2), *_block(2 * width, 4 * width),
            nn.AvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * width, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 1, 8, 8)` → logits `(n, 10)`."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    # Strides instead of max pooling: its gradient is not deterministic on a GPU.
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
