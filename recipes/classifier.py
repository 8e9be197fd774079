"""What all networks of the recipes share: a backbone, a head, the loss, accuracies, and the configured optimizer."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_optim import configure_optimizers


class Classifier(LightningModule):
    """A subclass sets `backbone` and `head`, saves the hyperparameters `optimizer` and `scheduler`, and has `forward`.

    Args:
        num_classes: number of labels.
    """

    backbone: nn.Module
    head: nn.Module

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.accuracy = nn.ModuleDict(
            {split: MulticlassAccuracy(num_classes, average="micro") for split in ("val", "test")}
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self(inputs), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the validation data."""
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the test data."""
        self._evaluate("test", batch)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule as configured."""
        return configure_optimizers(self, self.hparams["optimizer"], self.hparams["scheduler"])

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        inputs, labels = batch
        accuracy = self.accuracy[split]
        assert isinstance(accuracy, MulticlassAccuracy)
        accuracy(self(inputs), labels)
        self.log(f"{split}/accuracy", accuracy, prog_bar=True)

    @torch.no_grad()
    def copy_backbone_from(self, other: Classifier) -> None:
        """Copy the weights and running statistics of another network's backbone."""
        self.backbone.load_state_dict(other.backbone.state_dict())
