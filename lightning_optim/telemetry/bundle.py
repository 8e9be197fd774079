"""Tensors that are measured together, sorted by what measures them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_LARGE = 1 << 14
"""Beyond so many elements, a tensor is worth a call of its own; up to so many, a copy beside others costs it less."""
_ROW = 1 << 15
"""So many at most become one float32, in one thread."""
_PLAIN = (Tensor, nn.Parameter)

Places = NDArray[np.int64]
_Kind = tuple[int, torch.dtype, torch.Size]
"""The number of its device, -1 for the CPU; type; shape."""


class Part(NamedTuple):
    """Tensors of one device and type."""

    dtype: torch.dtype
    listed: list[Tensor]
    """For the one call that takes many; each gives a number."""
    matrices: list[Tensor | list[Tensor]]
    """For a call each; each row gives a number. Large tensors, `(n, m)`, and small ones of one shape, to be stacked."""
    places: Places
    """`(numbers,)`: which tensor of the bundle each number belongs to."""
    cuts: NDArray[np.int64] | None
    """`(numbers,)`: into how many parts that tensor is cut, 1 if every rank has it whole; None if all are."""


class Bundle:
    """Tensors in an order, and sorted.

    The call for many is one kernel on a GPU. On the CPU it takes one tensor after the other, each in one thread and one
    float32, which is off by 1e-2 at 10⁸ elements: there, only small ones of a shape that no other has are left to it.

    Args:
        tensors: whatever part of each this rank holds.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.sizes = [tensor.numel() for tensor in tensors]
        """Elements of each, as a whole."""
        self.is_plain = all(type(tensor) in _PLAIN for tensor in tensors)
        local, cuts = tensors, None
        if not self.is_plain and any(isinstance(tensor, DTensor) for tensor in tensors):
            found = [_local(tensor) for tensor in tensors]
            local, cuts = [tensor for tensor, _ in found], np.array([cut for _, cut in found])
        if any(tensor.is_complex() for tensor in local):
            local = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in local]
        # A device's number takes a fifth of the time that the device itself does.
        plans = _plans(tuple([(tensor.get_device(), tensor.dtype, tensor.shape) for tensor in local]))
        self.parts = [plan.part(local, cuts) for plan in plans]


class _Plan(NamedTuple):
    """A part of a bundle, by where its tensors stand."""

    dtype: torch.dtype
    listed: list[int]
    stacks: list[list[int]]
    """Of small tensors of one shape each."""
    large: list[int]
    places: Places
    """Of the part."""

    def part(self, tensors: Sequence[Tensor], cuts: NDArray[np.int64] | None) -> Part:
        matrices: list[Tensor | list[Tensor]] = [[tensors[place] for place in stack] for stack in self.stacks]
        matrices += [matrix for place in self.large for matrix in _matrices(tensors[place])]
        listed = [tensors[place] for place in self.listed]
        return Part(self.dtype, listed, matrices, self.places, None if cuts is None else cuts[self.places])


@lru_cache(maxsize=32)
def _plans(kinds: tuple[_Kind, ...]) -> list[_Plan]:
    """How tensors of these kinds are sorted; a step's gradients are new tensors, but of the kinds of the last one's."""
    return [
        _plan(dtype, {place: kind[2] for place, kind in enumerate(kinds) if kind[:2] == (device, dtype)}, device < 0)
        for device, dtype in dict.fromkeys(kind[:2] for kind in kinds)
    ]


def _plan(dtype: torch.dtype, shapes: Mapping[int, torch.Size], on_cpu: bool) -> _Plan:
    listed: list[int] = []
    large: list[int] = []
    alike: dict[torch.Size, list[int]] = {}
    for place, shape in shapes.items():
        if not on_cpu:
            listed.append(place)
        elif shape.numel() > _LARGE:
            large.append(place)
        else:
            alike.setdefault(shape, []).append(place)
    listed += [stack[0] for stack in alike.values() if len(stack) == 1]
    stacks = [stack for stack in alike.values() if len(stack) > 1]
    places = [*listed, *(place for stack in stacks for place in stack)]
    for place in large:
        rows, _, rest = _rows(shapes[place].numel())
        places += [place] * (rows + rest)
    return _Plan(dtype, listed, stacks, large, np.array(places))


def _local(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's part of a tensor, and into how many parts it is cut."""
    if not isinstance(tensor, DTensor):
        return tensor, 1
    if any(placement.is_partial() for placement in tensor.placements):
        return tensor.full_tensor(), 1
    mesh = tensor.device_mesh
    cuts = [mesh.size(dim) for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return tensor.to_local(), math.prod(cuts)


def _matrices(tensor: Tensor) -> list[Tensor]:
    """A large tensor as rows, and what is left as one more."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    rows, length, rest = _rows(tensor.numel())
    if tensor.is_contiguous() and not rest:
        return [tensor.view(rows, length)]
    # In the order of memory, so that reshaping copies nothing where there are no gaps.
    flat = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).reshape(-1)
    return [flat[: rows * length].view(rows, length), flat[rows * length :].view(1, -1)][: 2 if rest else 1]


@lru_cache(maxsize=4096)
def _rows(size: int) -> tuple[int, int, int]:
    """How many rows, of how many elements, and whether there is a rest: none where there is a good number of rows."""
    least = -(-size // _ROW)
    rows = next((rows for rows in range(least, 2 * least + 16) if size % rows == 0), 0)
    return (rows, size // rows, 0) if rows else (size // _ROW, _ROW, 1)
