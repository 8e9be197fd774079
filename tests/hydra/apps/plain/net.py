"""A user's LightningModule with its optimizer factory as a hyperparameter."""

import torch
from lightning.pytorch import LightningModule
from torch import nn


class Net(LightningModule):
    def __init__(self, width, optimizer):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self):
        return self.hparams.optimizer(self)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator)
    return torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
