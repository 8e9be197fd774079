"""Shuffled batches whose order depends on seed and epoch only, so that a run resumes in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Protocol

import torch
from torch import Tensor


class IndexedBatches(Protocol):
    """Labelled inputs that are read many at a time, such as a `TensorDataset` of two tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> tuple[Tensor, ...]:
        """The inputs and labels at these indices."""


class EpochLoader:
    """Shuffled batches, which a checkpoint can resume in mid-epoch.

    Args:
        data: inputs and labels.
        batch_size: per rank.
        seed: of the order.
        rank: whose share of each epoch this process gets.
        world_size: the number of ranks.
    """

    def __init__(self, data: IndexedBatches, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._data = data
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
        order = torch.randperm(len(self._data), generator=generator)
        of_rank = order[self._rank :: self._world_size][: self._samples_per_rank]
        for batch in of_rank.split(self._batch_size)[self._batch :]:  # type: ignore[no-untyped-call]
            self._batch += 1
            inputs, labels = self._data[batch]
            yield inputs, labels

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
        return len(self._data) // self._world_size
