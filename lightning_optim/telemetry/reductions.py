"""Many tensors, each reduced to a number: in few kernels, one collective, and one asynchronous copy to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ..optim.fused.tensor_sums import add_up
from ..optim.half_precision import HALF_DTYPES
from .tensor_batch import Indices, Partition, TensorBatch


class Reduce(Enum):
    """How a tensor becomes a number."""

    SQUARES = "the sum of its squares"
    NON_NEGATIVE_SUM = "the sum of its values, none of which is negative"
    SUM = "the sum of its values"
    VALUE = "its only value, the same on every rank"


class KnownSums(NamedTuple):
    """Sums that somebody has computed already."""

    kind: Reduce
    indices: Indices
    """`(n,)`: of which tensors of a batch."""
    values: Tensor
    """`(n,)`: of this rank's shards, where tensors are sharded; `SQUARES` as sums of squares."""


class Request(NamedTuple):
    """What to reduce, and how."""

    batch: TensorBatch
    kinds: tuple[Reduce, ...]
    known: Sequence[KnownSums] = ()
    """As in `Reductions.add`."""


class Reductions:
    """Numbers that are computed on devices and copied to the host without waiting for them.

    A DTensor counts in full, whatever shard of it this rank holds. If there is one, every rank must `add` the same
    tensors and call `start_copy`. Within a tensor, sums are in float32, off by 1e-5 at most; beyond it in float64.
    """

    def __init__(self) -> None:
        self._reduced: list[_ReducedPartition] = []
        self._count = 0
        self._copies: list[_HostCopy] = []

    @torch.no_grad()
    def add(self, tensors: TensorBatch | Sequence[Tensor], *kinds: Reduce, known: Sequence[KnownSums] = ()) -> None:
        """Reduce tensors, which may change afterwards.

        The next results are the numbers of these tensors in their order, for one kind of reduction after the other.
        Kinds that are asked for together read the memory once.

        Args:
            tensors: to reduce.
            *kinds: how.
            known: sums that need not be computed; of each tensor in it, those of all kinds.
        """
        batch = tensors if isinstance(tensors, TensorBatch) else TensorBatch(tensors)
        self.add_all([Request(batch, kinds, known)])

    @torch.no_grad()
    def add_all(self, requests: Sequence[Request]) -> None:
        """`add` for several batches: one call of a compiled kernel for all of them takes less time."""
        parts: list[tuple[Partition, tuple[Reduce, ...], Indices, int]] = []
        for batch, kinds, known in requests:
            size = len(batch.sizes)
            for sums in known:
                num_shards = None if batch.num_shards is None else batch.num_shards[sums.indices]
                indices = sums.indices + (self._count + kinds.index(sums.kind) * size)
                self._reduced.append(_ReducedPartition(Reduce.SUM, indices, num_shards, [sums.values]))
            unknown, positions = (batch, np.arange(size)) if not known else batch.without([k.indices for k in known])
            parts += [(part, kinds, positions[part.indices] + self._count, size) for part in unknown.partitions]
            self._count += len(kinds) * size
        reduced = _reduce_partitions([(part, kinds) for part, kinds, *_ in parts])
        for (part, kinds, indices, size), vectors in zip(parts, reduced, strict=True):
            for number, (kind, values) in enumerate(zip(kinds, vectors, strict=True)):
                self._reduced.append(_ReducedPartition(kind, indices + number * size, part.num_shards, values))

    @torch.no_grad()
    def start_copy(self) -> None:
        """Start to copy the numbers to the host: one vector for each device, with shards summed over ranks."""
        by_device: dict[torch.device, list[_ReducedPartition]] = {}
        for reduced in self._reduced:
            by_device.setdefault(reduced.values[0].device, []).append(reduced)
        self._copies += [_HostCopy(*_to_vector(parts, self._count)) for parts in by_device.values()]
        self._reduced = []

    @property
    def is_ready(self) -> bool:
        """Whether `results` would not have to wait."""
        return all(copy.is_done for copy in self._copies)

    def results(self) -> list[float]:
        """All numbers, in the order in which they were added; waits until they are copied."""
        totals = np.zeros(self._count)
        for copy in self._copies:
            totals += np.bincount(copy.indices, copy.wait(), self._count)
        results: list[float] = totals.tolist()
        return results


class _ReducedPartition(NamedTuple):
    """The numbers of a partition, from one kind of reduction."""

    kind: Reduce
    indices: Indices
    """`(num_numbers,)`: which result each number is added to."""
    num_shards: NDArray[np.int64] | None
    """As in `Partition`."""
    values: list[Tensor]
    """Vectors. For `SQUARES` they hold norms, as sums of squares might not fit their dtype."""


def _to_vector(parts: Sequence[_ReducedPartition], count: int) -> tuple[Tensor, Indices]:
    """All numbers of a device, `(n,)`, in float64 if it has that, and which of `count` results each is added to."""
    squares = [part for part in parts if part.kind is Reduce.SQUARES]
    values = [part for part in parts if part.kind is Reduce.VALUE]
    summed = squares + [part for part in parts if part.kind in (Reduce.NON_NEGATIVE_SUM, Reduce.SUM)]
    vector = torch.cat([numbers for part in summed + values for numbers in part.values])
    vector = vector.to(_widest_float(vector.device))
    vector[: sum(len(part.indices) for part in squares)].square_()
    indices = np.concatenate([part.indices for part in summed + values])
    if any(part.num_shards is not None for part in summed):
        num_shards = [np.ones(len(part.indices)) if part.num_shards is None else part.num_shards for part in summed]
        return _sum_over_ranks(vector, indices, np.concatenate(num_shards), count)
    return vector, indices


def _sum_over_ranks(vector: Tensor, indices: Indices, num_shards: NDArray[Any], count: int) -> tuple[Tensor, Indices]:
    """The vector with the first `len(num_shards)` numbers summed over ranks, so that replicas count once.

    Summed by tensor, as ranks may have shards of different sizes, and so different numbers of rows.
    """
    num_summed = len(num_shards)
    # A shard is on `world size / num_shards` ranks.
    weights = num_shards / dist.get_world_size()
    index, weight = (_to_device(array, vector.device) for array in (indices[:num_summed], weights))
    sums = vector.new_zeros(count).index_add_(0, index, vector[:num_summed] * weight)
    dist.all_reduce(sums)
    return torch.cat([sums, vector[num_summed:]]), np.concatenate([np.arange(count), indices[num_summed:]])


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy on the device, without waiting for it."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class _HostCopy:
    """The copy of a vector to the host: asynchronous, into pinned memory, if it comes from a GPU."""

    def __init__(self, vector: Tensor, indices: Indices) -> None:
        self.indices = indices
        self._event: torch.cuda.Event | None = None
        if vector.is_cuda:
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vector.device))
        else:
            self._host = vector.cpu()

    @property
    def is_done(self) -> bool:
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> NDArray[np.float64]:
        """The vector, `(n,)`."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()


def _reduce_partitions(parts: Sequence[tuple[Partition, Sequence[Reduce]]]) -> list[list[list[Tensor]]]:
    """For each partition and each of its kinds of reduction, the numbers as vectors to be concatenated."""
    compiled: dict[torch.dtype, list[int]] = {}
    for i, (part, kinds) in enumerate(parts):
        if part.compiled and Reduce.VALUE not in kinds:
            compiled.setdefault(part.dtype, []).append(i)
    found: dict[int, list[list[Tensor]]] = {}
    for positions in compiled.values():
        lists = [parts[i][0].compiled for i in positions]
        sums, squares = add_up([*chain.from_iterable(lists)])
        of_parts = (torch.split(numbers, list(map(len, lists))) for numbers in (sums, squares.sqrt_()))
        for i, sums_of_part, norms in zip(positions, *of_parts, strict=True):
            found[i] = [[norms] if kind is Reduce.SQUARES else [sums_of_part] for kind in parts[i][1]]
    return [found.get(i) or _reduce_partition(*part) for i, part in enumerate(parts)]


def _reduce_partition(part: Partition, kinds: Sequence[Reduce]) -> list[list[Tensor]]:
    """For each kind of reduction, the numbers of a partition as vectors to be concatenated."""
    listed = part.compiled or part.listed
    vectors: list[list[Tensor]] = [[_reduce_list(listed, kind)] if listed else [] for kind in kinds]
    reducers = [(output.append, _row_reducer(kind, part.dtype)) for output, kind in zip(vectors, kinds, strict=True)]
    for item in part.matrices:
        # All kinds for one matrix, then the next: the second kind finds the matrix in the CPU's cache.
        matrix = item if isinstance(item, Tensor) else torch.stack(item).reshape(len(item), item[0].numel())
        for append, reduce_rows in reducers:
            append(reduce_rows(matrix))
    return vectors


def _reduce_list(tensors: list[Tensor], kind: Reduce) -> Tensor:
    """One number for each tensor, from one call for all of them where torch has such a call."""
    if kind is Reduce.VALUE:
        one_shape = len({tensor.shape for tensor in tensors}) == 1
        return _flat_values(torch.stack(tensors) if one_shape else torch.cat([tensor.flatten() for tensor in tensors]))
    dtype = _accumulation_dtype(tensors[0].dtype)
    if kind is Reduce.SUM:
        return torch.stack([tensor.sum(dtype=dtype) for tensor in tensors])
    return torch.stack(torch._foreach_norm(tensors, 2.0 if kind is Reduce.SQUARES else 1.0, dtype=dtype))


def _row_reducer(kind: Reduce, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function that takes a matrix and returns one number for each row."""
    if kind is Reduce.VALUE:
        return _flat_values
    if kind is Reduce.SQUARES:
        return partial(torch.linalg.vector_norm, dim=1, dtype=_accumulation_dtype(dtype))
    return partial(torch.sum, dim=1, dtype=_accumulation_dtype(dtype))


def _flat_values(tensor: Tensor) -> Tensor:
    """The elements; integers as the widest float, as float32 would round large ones."""
    return tensor.flatten() if tensor.is_floating_point() else tensor.flatten().to(_widest_float(tensor.device))


def _widest_float(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """float32 for 16-bit tensors, whose own dtype would lose small summands; None for the tensor's own."""
    return torch.float32 if dtype in HALF_DTYPES else None
