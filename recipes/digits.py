"""The digits of scikit-learn: 1,797 real images of 8 × 8, clean for pretraining, heavily noisy for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 10


class EpochLoader:
    """Shuffled batches whose order depends on seed and epoch only; a checkpoint can resume it in mid-epoch.

    Args:
        images: `(n, 1, 8, 8)`.
        labels: `(n,)`.
        batch_size: per rank.
        seed: of the order.
        rank: whose share of each epoch this process gets.
        world_size: the number of ranks.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._images, self._labels = images, labels
        self._batch_size, self._seed = batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = self._batch = 0
        self.batch_sampler = SimpleNamespace(sampler=self)  # where Lightning looks for `set_epoch`

    def __len__(self) -> int:
        return -(-self._samples_per_rank // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._batch >= len(self):
            self._epoch, self._batch = self._epoch + 1, 0
        generator = torch.Generator().manual_seed(1000 * self._seed + self._epoch)
        order = torch.randperm(len(self._labels), generator=generator)
        of_rank = order[self._rank :: self._world_size][: self._samples_per_rank]
        for batch in of_rank.split(self._batch_size)[self._batch :]:  # type: ignore[no-untyped-call]
            self._batch += 1
            yield self._images[batch], self._labels[batch]

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch. Lightning calls this in every epoch; it restores a loader's state only within one."""
        if epoch != self._epoch:
            self._epoch, self._batch = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at a saved position."""
        self._epoch, self._batch = state_dict["epoch"], state_dict["batch"]

    @property
    def _samples_per_rank(self) -> int:
        return len(self._labels) // self._world_size


class Digits(LightningDataModule):
    """The images of one phase: all of them clean, or a few of them noisy. All three splits have the same noise.

    Args:
        seed: of the choice of labels, of the noise and of the order.
        noise: standard deviation of the Gaussian noise on pixels in [0, 1]; 0 for clean images.
        labels_per_class: how many of the training images are used; None for all.
        batch_size: per rank.
        test_size: number of images held out for the test, the same images for every seed.
        val_size: number of images held out for validation, the same images for every seed.
    """

    def __init__(
        self, seed: int, noise: float, labels_per_class: int | None, batch_size: int, test_size: int, val_size: int
    ) -> None:
        super().__init__()
        self._seed, self._batch_size = seed, batch_size
        images, labels = _load_images_and_labels()
        order = np.random.default_rng(0).permutation(len(labels))
        test, val, train = order[:test_size], order[test_size : test_size + val_size], order[test_size + val_size :]
        if labels_per_class is not None:
            train = _sample_per_class(labels, train, labels_per_class, seed)
        generator = torch.Generator().manual_seed(seed)
        images = images + noise * torch.randn(images.shape, generator=generator)
        self._splits = {
            name: (images[torch.from_numpy(indices)], labels[torch.from_numpy(indices)])
            for name, indices in (("train", train), ("val", val), ("test", test))
        }

    def train_dataloader(self) -> EpochLoader:
        """Batches of this rank's share of the training images."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return EpochLoader(*self._splits["train"], self._batch_size, self._seed, rank, world_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images."""
        return DataLoader(TensorDataset(*self._splits["val"]), batch_size=500)

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images."""
        return DataLoader(TensorDataset(*self._splits["test"]), batch_size=500)


def _load_images_and_labels() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(digits.target, dtype=torch.long)


def _sample_per_class(labels: Tensor, indices: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.concatenate([shuffled[labels[shuffled] == digit][:per_class] for digit in range(CLASSES)])
