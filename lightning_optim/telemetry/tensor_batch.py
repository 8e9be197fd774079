"""Tensors that are reduced together, split by device, dtype and the call that reduces each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..optim.fused.available import MIN_ELEMENTS
from ..optim.fused.tensor_sums import can_add_up
from ..optim.real_view import real

_LARGE_NUMEL = 1 << 14
"""A tensor with more elements is worth a call of its own; copying a smaller one into a stack of others costs less."""
_MAX_ROW_LENGTH = 1 << 15
"""At most this many elements are summed into one float32, by one thread."""
_PLAIN_TYPES = (Tensor, nn.Parameter)

Indices = NDArray[np.int64]
_TensorKind = tuple[type[Tensor], torch.device, torch.dtype, torch.Size]


class Partition(NamedTuple):
    """The tensors of one device and dtype; plain ones, or of classes with their own operations."""

    dtype: torch.dtype
    compiled: list[Tensor]
    """Reduced by a compiled kernel: one number for each tensor."""
    listed: list[Tensor]
    """Reduced by one call for the whole list: one number for each tensor."""
    matrices: list[Tensor | list[Tensor]]
    """Reduced by one call each: one number for each row. A large tensor as `(rows, length)`, or small tensors of one
    shape that are stacked first."""
    indices: Indices
    """`(num_numbers,)`: the index in the batch of the tensor that each number belongs to."""
    num_shards: NDArray[np.int64] | None
    """`(num_numbers,)`: over how many ranks that tensor is sharded, 1 if every rank holds all of it; None if no tensor
    is sharded."""


class TensorBatch:
    """A list of tensors, split into partitions.

    A call for a list of tensors is one kernel on a GPU. On the CPU it takes one tensor after the other, each in one
    thread and into one float32, which is off by 1e-2 at 10⁸ elements. So on the CPU a compiled kernel of our own
    reduces many elements; without a compiler, or for few of them, only small tensors whose shape no other tensor has
    are reduced as a list.

    Args:
        tensors: of a DTensor, only the shard of this rank is reduced here.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.sizes = [tensor.numel() for tensor in tensors]
        """The number of elements of each tensor, over all ranks."""
        self.is_plain = all(type(tensor) in _PLAIN_TYPES for tensor in tensors)
        self.num_shards: NDArray[np.int64] | None = None
        """Over how many ranks each tensor is sharded; None if no tensor is."""
        self._tensors = tensors
        self._rest: tuple[bytes, TensorBatch, Indices] | None = None
        local = tensors
        if not self.is_plain and any(isinstance(tensor, DTensor) for tensor in tensors):
            shards = [_local_shard(tensor) for tensor in tensors]
            local, self.num_shards = [tensor for tensor, _ in shards], np.array([count for _, count in shards])
        if any(tensor.is_complex() for tensor in local):
            local = list(map(real, local))
        self._local = local

    @cached_property
    def partitions(self) -> list[Partition]:
        """The tensors, or their shards on this rank, in partitions."""
        kinds = tuple([(type(tensor), tensor.device, tensor.dtype, tensor.shape) for tensor in self._local])
        return [layout.partition(self._local, self.num_shards) for layout in _layouts(kinds)]

    def without(self, indices: Iterable[Indices]) -> tuple[TensorBatch, Indices]:
        """The batch without these tensors, and the indices here of those that it has; the last one is cached."""
        is_left = np.ones(len(self.sizes), dtype=bool)
        for removed in indices:
            is_left[removed] = False
        key = is_left.tobytes()
        if self._rest is None or self._rest[0] != key:
            left = np.flatnonzero(is_left)
            self._rest = key, TensorBatch([self._tensors[index] for index in left.tolist()]), left
        return self._rest[1:]


class _Layout(NamedTuple):
    """A partition whose tensors are given by their index in the batch."""

    dtype: torch.dtype
    compiled: list[int]
    listed: list[int]
    stacks: list[list[int]]
    """Small tensors, those of one shape together."""
    large: list[int]
    indices: Indices
    """As in `Partition`."""

    def partition(self, tensors: Sequence[Tensor], num_shards: NDArray[np.int64] | None) -> Partition:
        matrices: list[Tensor | list[Tensor]] = [[tensors[index] for index in stack] for stack in self.stacks]
        matrices += [matrix for index in self.large for matrix in _as_matrices(tensors[index])]
        compiled, listed = ([tensors[index] for index in indices] for indices in (self.compiled, self.listed))
        num_shards = None if num_shards is None else num_shards[self.indices]
        return Partition(self.dtype, compiled, listed, matrices, self.indices, num_shards)


@lru_cache(maxsize=32)
def _layouts(kinds: tuple[_TensorKind, ...]) -> list[_Layout]:
    """The layout of each partition. Cached: gradients are new tensors at each step, but of the same kinds."""
    shapes: dict[tuple[bool, torch.device, torch.dtype], dict[int, torch.Size]] = {}
    for index, (cls, device, dtype, shape) in enumerate(kinds):
        shapes.setdefault((cls in _PLAIN_TYPES, device, dtype), {})[index] = shape
    return [_layout(*key, shapes_by_index) for key, shapes_by_index in shapes.items()]


def _layout(is_plain: bool, device: torch.device, dtype: torch.dtype, shapes: Mapping[int, torch.Size]) -> _Layout:
    on_cpu = device.type == "cpu"
    # Only a plain tensor has memory that a kernel can read: a wrapper of other tensors has none.
    pays_to_compile = is_plain and on_cpu and sum(shape.numel() for shape in shapes.values()) >= MIN_ELEMENTS
    if pays_to_compile and can_add_up(dtype):
        return _Layout(dtype, list(shapes), [], [], [], np.array(list(shapes)))
    listed: list[int] = []
    large: list[int] = []
    small_by_shape: dict[torch.Size, list[int]] = {}
    for index, shape in shapes.items():
        if not on_cpu:
            listed.append(index)
        elif shape.numel() > _LARGE_NUMEL:
            large.append(index)
        else:
            small_by_shape.setdefault(shape, []).append(index)
    listed += [stack[0] for stack in small_by_shape.values() if len(stack) == 1]
    stacks = [stack for stack in small_by_shape.values() if len(stack) > 1]
    indices = [*listed, *(index for stack in stacks for index in stack)]
    for index in large:
        num_rows, _, num_remainders = _split_into_rows(shapes[index].numel())
        indices += [index] * (num_rows + num_remainders)
    return _Layout(dtype, [], listed, stacks, large, np.array(indices))


def _local_shard(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's shard of a tensor, and the number of shards."""
    if not isinstance(tensor, DTensor):
        return tensor, 1
    if any(placement.is_partial() for placement in tensor.placements):
        return tensor.full_tensor(), 1
    mesh = tensor.device_mesh
    sizes = [mesh.size(dim) for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return tensor.to_local(), math.prod(sizes)


def _as_matrices(tensor: Tensor) -> list[Tensor]:
    """A large tensor as a matrix, and its remaining elements, if any, as a second one of one row."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    num_rows, length, num_remainders = _split_into_rows(tensor.numel())
    if tensor.is_contiguous() and not num_remainders:
        return [tensor.view(num_rows, length)]
    # In memory order, so that reshaping copies nothing where the memory has no gaps.
    flat = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).reshape(-1)
    matrices = [flat[: num_rows * length].view(num_rows, length), flat[num_rows * length :].view(1, -1)]
    return matrices[: 1 + num_remainders]


@lru_cache(maxsize=4096)
def _split_into_rows(size: int) -> tuple[int, int, int]:
    """`(rows, length of a row, remainders)`: 1 remainder, a shorter row, only where no suitable row count divides."""
    least = -(-size // _MAX_ROW_LENGTH)
    num_rows = next((rows for rows in range(least, 2 * least + 16) if size % rows == 0), 0)
    return (num_rows, size // num_rows, 0) if num_rows else (size // _MAX_ROW_LENGTH, _MAX_ROW_LENGTH, 1)
