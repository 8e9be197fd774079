"""`Cut`: the tensors of a launch, cut into the chunks that threads take one after the other."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Elements of a batch: some megabytes together with gradients and state.
_BATCH = 1 << 18


@dataclass
class Cut:
    """Tensors in chunks.

    Attributes:
        shapes: per tensor: number of elements, elements per row, first chunk, number of chunks, rows before.
        chunks: per chunk: tensor, first row or element, number of rows or elements.
        num_rows: of all tensors.
    """

    shapes: array[int] = field(default_factory=lambda: array("q"))
    chunks: array[int] = field(default_factory=lambda: array("q"))
    num_rows: int = 0
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _batches: array[int] = field(default_factory=lambda: array("q"))

    def add(self, numel: int, num_rows: int, rows_per_chunk: int) -> None:
        """Add a tensor.

        Args:
            numel: its number of elements.
            num_rows: its number of rows; that of its elements, if it has no rows.
            rows_per_chunk: how many of them a chunk has.
        """
        first_chunk = len(self.chunks) // 3
        for first in range(0, num_rows, rows_per_chunk):
            self.chunks.extend((len(self.shapes) // 5, first, min(rows_per_chunk, num_rows - first)))
        num_chunks = len(self.chunks) // 3 - first_chunk
        self.shapes.extend((numel, numel // max(1, num_rows), first_chunk, num_chunks, self.num_rows))
        self.num_rows += num_rows

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both, on a device; copied there once."""
        if device not in self._copies:
            self._copies[device] = torch.tensor(self.shapes).to(device), torch.tensor(self.chunks).to(device)
        return self._copies[device]

    def batches(self) -> array[int]:
        """The first chunk of each batch, and the number of all; a batch is one tensor, or several that fit a cache."""
        if not self._batches:
            size = _BATCH
            for numel, first_chunk in zip(self.shapes[::5], self.shapes[2::5], strict=True):
                size += numel
                if size > _BATCH:
                    self._batches.append(first_chunk)
                    size = numel
            self._batches.append(self.sizes()[1])
        return self._batches

    def sizes(self) -> tuple[int, int]:
        """The number of tensors and of chunks."""
        return len(self.shapes) // 5, len(self.chunks) // 3
