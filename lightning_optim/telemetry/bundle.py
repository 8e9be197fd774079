"""Tensors that are measured together, sorted by what measures them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_LARGE = 1 << 16
_PLAIN = (Tensor, nn.Parameter)


class Part(NamedTuple):
    """Tensors of one device and type; on the CPU all large, or none."""

    places: list[int]
    """Where each stands in the bundle."""
    tensors: list[Tensor]
    """This rank's part of each."""
    cuts: list[int]
    """Into how many parts each is cut; 0 for a plain one, which every rank has whole."""
    rows: list[Tensor | tuple[Tensor, ...]]
    """Where they are large: each as `(n, m)`, or as `n` pieces; views, which threads share."""
    owners: Tensor | None
    """`(rows,)`: whose each row is."""


class Bundle:
    """Tensors in an order, and sorted. Sorting takes longer than measuring small ones: bundles may be kept.

    Args:
        tensors: whatever part of each this rank holds.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.sizes = [tensor.numel() for tensor in tensors]
        """Elements of each, as a whole."""
        self.is_plain = all(type(tensor) in _PLAIN for tensor in tensors)
        cut = [(tensor, 0) for tensor in tensors] if self.is_plain else [_local(tensor) for tensor in tensors]
        # A device's number takes a fifth of the time that the device itself does.
        kinds = [(t.get_device(), t.dtype, t.is_cpu and t.numel() > _LARGE) for t, _ in cut]
        self.parts: list[Part] = []
        for kind in dict.fromkeys(kinds):
            places = [place for place, other in enumerate(kinds) if other == kind]
            alike, cuts = [cut[place][0] for place in places], [cut[place][1] for place in places]
            rows = [_rows(tensor) for tensor in alike] if kind[2] else []
            self.parts.append(Part(places, alike, cuts, rows, _owners(rows) if rows else None))


def _local(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's part of a tensor, and into how many parts it is cut."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    if any(placement.is_partial() for placement in tensor.placements):
        return tensor.full_tensor(), 0
    mesh = tensor.device_mesh
    cuts = [mesh.size(dim) for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return tensor.to_local(), math.prod(cuts)


def _rows(tensor: Tensor) -> Tensor | tuple[Tensor, ...]:
    tensor = tensor.detach()
    rows = _num_rows(tensor.numel())
    if rows and tensor.is_contiguous():
        return tensor.view(rows, -1)
    # In the order of memory, so that reshaping copies nothing where there are no gaps.
    flat = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).reshape(-1)
    return torch.split(flat, _LARGE)


def _owners(rows: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor:
    return torch.repeat_interleave(torch.tensor([len(each) for each in rows]))


@lru_cache(maxsize=4096)
def _num_rows(size: int) -> int:
    """How many equal rows of no more than `_LARGE` elements make up so many; 0 where no good number does."""
    least = -(-size // _LARGE)
    return next((rows for rows in range(least, 2 * least + 16) if size % rows == 0), 0)
