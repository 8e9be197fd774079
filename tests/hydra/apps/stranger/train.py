import hydra
import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_optim import configure_optimizers


class Net(LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        self.save_hyperparameters()
        self.backbone, self.head = nn.Sequential(nn.Linear(20, 64), nn.LayerNorm(64), nn.ReLU()), nn.Linear(64, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self):
        return configure_optimizers(self, self.hparams.optimizer)


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    inputs = torch.randn(1024, 20)
    data = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=32)
    callbacks = [instantiate(config.unfreeze), instantiate(config.monitor)]
    Trainer(max_epochs=3, callbacks=callbacks, log_every_n_steps=1).fit(Net(instantiate(config.optimizer)), data)


if __name__ == "__main__":
    main()
