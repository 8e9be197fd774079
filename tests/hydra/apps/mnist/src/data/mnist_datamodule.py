import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset, random_split


class MNISTDataModule(LightningDataModule):
    """Random images in place of MNIST."""

    def __init__(self, batch_size, train_val_test_split):
        super().__init__()
        self.save_hyperparameters(logger=False)
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(10, (sum(train_val_test_split),), generator=generator)
        images = torch.randn(10, 1, 8, 8, generator=generator)[labels]
        self.parts = random_split(TensorDataset(images, labels), train_val_test_split, generator)

    def loader(self, index):
        return DataLoader(self.parts[index], batch_size=self.hparams.batch_size)

    def train_dataloader(self):
        return self.loader(0)

    def val_dataloader(self):
        return self.loader(1)

    def test_dataloader(self):
        return self.loader(2)
