"""The base of all data of the recipes: three splits, and loaders of them that a run can resume from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_optim import ConfigError

from .epoch_loader import EpochLoader, IndexedBatches

SPLITS = ("train", "val", "test")


class SplitData(LightningDataModule):
    """Training, validation and test data.

    Args:
        splits: `train`, `val` and `test`.
        batch_size: of training, per rank.
        seed: of the order of training.
        description: what the test is on, as the last line of a run says it.
        eval_batch_size: of validation and test.
    """

    def __init__(
        self,
        splits: Mapping[str, IndexedBatches],
        batch_size: int,
        seed: int,
        description: str,
        eval_batch_size: int = 500,
    ) -> None:
        super().__init__()
        self._splits, self._batch_size, self._seed = splits, batch_size, seed
        self._eval_batch_size = eval_batch_size
        self.description = description

    def train_dataloader(self) -> EpochLoader:
        """Batches of this rank's share of the training data."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return EpochLoader(self._splits["train"], self._batch_size, self._seed, rank, world_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation data."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """All test data."""
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> DataLoader[Any]:
        return DataLoader(self._splits[split], batch_size=self._eval_batch_size)  # type: ignore[arg-type]


def sample_per_label(labels: Sequence[Any] | np.ndarray, indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Of each label, `count` of the indices by chance, or all if there are fewer; in the order of the labels."""
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.concatenate([shuffled[labels[shuffled] == label][:count] for label in np.unique(labels)])


def split_by_label(labels: Sequence[str], key: str) -> dict[str, np.ndarray]:
    """Split → indices: of each label a fifth for test, a fifth for validation, and the rest for training.

    The same for every seed of a run.

    Args:
        labels: of all data.
        key: the config key that errors begin with.

    Raises:
        ConfigError: there are fewer than two labels, or fewer than three of one, so that a split would have none.
    """
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    if len(names) < 2:
        raise ConfigError(f"{key}: only one label, {names[0]!s}. Classification needs two or more")
    for name, count in zip(names, counts, strict=True):
        if count < len(SPLITS):
            raise ConfigError(
                f"{key}: the label {name!s} occurs {count} times, but training, validation and test need one each. "
                "Add some, or remove the label"
            )
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for name in names:
        indices = np.random.default_rng(0).permutation(np.flatnonzero(np.asarray(labels) == name))
        fifth = max(1, len(indices) // 5)
        for split, part in zip(
            SPLITS, np.split(indices, [len(indices) - 2 * fifth, len(indices) - fifth]), strict=True
        ):
            splits[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in splits.items()}
