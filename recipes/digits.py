"""The digits of scikit-learn: 1,797 real images of 8 × 8, clean for pretraining, heavily noisy for fine-tuning."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset

from .split_data import SplitData, sample_per_label

CLASSES = 10


class Digits(SplitData):
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
        images, labels = _load_images_and_labels()
        order = np.random.default_rng(0).permutation(len(labels))
        test, val, train = order[:test_size], order[test_size : test_size + val_size], order[test_size + val_size :]
        if labels_per_class is not None:
            train = sample_per_label(labels.numpy(), train, labels_per_class, seed)
        generator = torch.Generator().manual_seed(seed)
        images = images + noise * torch.randn(images.shape, generator=generator)
        splits = {
            name: TensorDataset(images[torch.from_numpy(indices)], labels[torch.from_numpy(indices)])
            for name, indices in (("train", train), ("val", val), ("test", test))
        }
        super().__init__(splits, batch_size, seed, description="noisy digits" if noise else "clean digits")


def _load_images_and_labels() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(digits.target, dtype=torch.long)
