"""`map_matrices`: a function of a stack of matrices, which for sharded ones computes each matrix on one rank only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from .matrices import join_matrices, separate_matrices
from .tensor_list import TensorList

Function = Callable[[Tensor], Tensor]
"""Of a stack of the shape (number, rows, columns); returns one of this shape, of the same dtype."""

_MAX_ELEMENTS = 2**26
"""Of the matrices that a rank holds for one exchange, unless one parameter has more."""


@dataclass(frozen=True)
class _Ranks:
    """The ranks that have the parts of a parameter, cut along one of its dimensions as `torch.chunk` cuts."""

    group: dist.ProcessGroup
    dim: int
    size: int
    rank: int

    def split(self, whole: Tensor) -> list[Tensor]:
        """The part of each rank."""
        return list(torch.split(whole, self.lengths(whole.shape), self.dim))

    def lengths(self, shape: Sequence[int]) -> list[int]:
        """How much of the dimension each rank has."""
        most = -(-shape[self.dim] // self.size)
        return [min(max(shape[self.dim] - rank * most, 0), most) for rank in range(self.size)]

    def part_shapes(self, shape: Sequence[int]) -> list[list[int]]:
        """The shape of each rank's part."""
        return [[*shape[: self.dim], n, *shape[self.dim + 1 :]] for n in self.lengths(shape)]


def map_matrices(function: Function, x: Any, rows: int, columns: int, dtype: torch.dtype | None = None) -> Any:
    """A function of the matrices in a tensor or a `TensorList`, in new tensors of their shapes, dtypes and shardings.

    Sharded parameters that have whole matrices on each rank, as experts may, stay there. Others that are cut along one
    dimension are sent to a rank, which gathers and computes them and sends the parts back: to each as many matrices,
    or one more. Whatever else is sharded is gathered and computed on every rank. In each case all ranks must call it.

    Args:
        function: of stacks; what a matrix becomes must not depend on the others in its stack.
        x: whose elements, in their order, are matrices of this shape.
        rows, columns: of each matrix.
        dtype: of the stacks; None: theirs.
    """
    tensors = x.tensors if isinstance(x, TensorList) else [x]
    results: dict[int, Tensor] = {}
    for ranks, positions in _by_ranks(tensors, rows * columns).items():
        chosen = TensorList(tensors[i] for i in positions)
        sharded: Any = chosen.tensors
        if ranks is None:
            mapped = separate_matrices(function(join_matrices(chosen, rows, columns, dtype)), chosen).tensors
        elif ranks == "local":
            mapped = _map_local(function, sharded, rows, columns, dtype)
        else:
            mapped = _exchange_and_map(function, sharded, ranks, rows, columns, dtype)
        results |= zip(positions, mapped, strict=True)
    ordered = [results[i] for i in range(len(tensors))]
    return TensorList(ordered) if isinstance(x, TensorList) else ordered[0]


def _by_ranks(tensors: Sequence[Tensor], matrix_size: int) -> Mapping[Any, list[int]]:
    """The positions of the tensors by how they are sharded: None, "local" or `_Ranks`."""
    kinds: dict[Any, list[int]] = {}
    for i, tensor in enumerate(tensors):
        ranks = _find_ranks(tensor) if isinstance(tensor, DTensor) else None
        if ranks is not None and _has_whole_matrices(tensor.shape, ranks, matrix_size):
            kinds.setdefault("local", []).append(i)
        else:
            kinds.setdefault(ranks, []).append(i)
    return kinds


def _find_ranks(tensor: DTensor) -> _Ranks | None:
    """The ranks that share a parameter; None if it is not cut along exactly one dimension, in `torch.chunk`'s way."""
    cuts = [i for i, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    if len(cuts) != 1 or type(placement := tensor.placements[cuts[0]]) is not Shard:
        return None
    mesh, cut = tensor.device_mesh, cuts[0]
    if mesh.size(cut) == 1:
        return None
    return _Ranks(mesh.get_group(cut), placement.dim % tensor.ndim, mesh.size(cut), mesh.get_local_rank(cut))


def _has_whole_matrices(shape: Sequence[int], ranks: _Ranks, matrix_size: int) -> bool:
    first = prod(ranks.part_shapes(shape)[0])
    return ranks.dim == 0 and first % matrix_size == 0


def _map_local(
    function: Function, tensors: Sequence[DTensor], rows: int, columns: int, dtype: torch.dtype | None
) -> list[Tensor]:
    parts = TensorList(tensor.to_local() for tensor in tensors)
    stack = join_matrices(parts, rows, columns, dtype)
    mapped = separate_matrices(function(stack) if len(stack) else stack, parts)
    return [_like(part, tensor) for part, tensor in zip(mapped.tensors, tensors, strict=True)]


def _exchange_and_map(
    function: Function, tensors: Sequence[DTensor], ranks: _Ranks, rows: int, columns: int, dtype: torch.dtype | None
) -> list[Tensor]:
    results: list[Tensor] = []
    # Of each rank at most so many elements at once; by position, so that every rank cuts in the same places.
    for batch in _batches(tensors, _MAX_ELEMENTS * ranks.size):
        parts = [tensor.to_local() if dtype is None else tensor.to_local().to(dtype) for tensor in batch]
        shapes = [tensor.shape for tensor in batch]
        owners = assign_owners([prod(shape) for shape in shapes], ranks.size)
        mine = [i for i, owner in enumerate(owners) if owner == ranks.rank]
        owned = TensorList(_gather(parts, shapes, owners, mine, ranks))
        mapped = owned.tensors
        if mine:
            mapped = separate_matrices(function(join_matrices(owned, rows, columns)), owned).tensors
        returned = _scatter(mapped, parts, owners, ranks)
        results += [_like(part, tensor) for part, tensor in zip(returned, batch, strict=True)]
    return results


def assign_owners(costs: Sequence[int], num_ranks: int) -> list[int]:
    """The rank that works on each of several pieces: in turn, the one that has the least to do so far.

    Args:
        costs: of each piece.
        num_ranks: of those that share the work.
    """
    loads = [0] * num_ranks
    owners = [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += costs[i]
    return owners


def _batches(tensors: Sequence[DTensor], max_elements: int) -> Iterable[list[DTensor]]:
    batch: list[DTensor] = []
    num_elements = 0
    for tensor in tensors:
        if batch and num_elements + tensor.numel() > max_elements:
            yield batch
            batch, num_elements = [], 0
        batch.append(tensor)
        num_elements += tensor.numel()
    yield batch


def _gather(
    parts: Sequence[Tensor], shapes: Sequence[Sequence[int]], owners: Sequence[int], mine: Sequence[int], ranks: _Ranks
) -> list[Tensor]:
    """The whole tensors that this rank owns."""
    sent = [[part for part, owner in zip(parts, owners, strict=True) if owner == r] for r in range(ranks.size)]
    part_shapes = [ranks.part_shapes(shapes[i]) for i in mine]
    received = _all_to_all(sent, [[of_ranks[r] for of_ranks in part_shapes] for r in range(ranks.size)], ranks)
    return [torch.cat(pieces, ranks.dim) for pieces in zip(*received, strict=True)]


def _scatter(
    wholes: Sequence[Tensor], like: Sequence[Tensor], owners: Sequence[int], ranks: _Ranks
) -> Sequence[Tensor]:
    """This rank's parts of all tensors, which their owners have."""
    by_whole = [ranks.split(whole) for whole in wholes]
    sent = [[pieces[r] for pieces in by_whole] for r in range(ranks.size)]
    positions = [[i for i, owner in enumerate(owners) if owner == r] for r in range(ranks.size)]
    received = _all_to_all(sent, [[like[i].shape for i in of_rank] for of_rank in positions], ranks, like[0])
    parts = {
        i: part
        for of_rank, tensors in zip(positions, received, strict=True)
        for i, part in zip(of_rank, tensors, strict=True)
    }
    return [parts[i] for i in range(len(like))]


def _all_to_all(
    sent: Sequence[Sequence[Tensor]],
    shapes: Sequence[Sequence[Sequence[int]]],
    ranks: _Ranks,
    like: Tensor | None = None,
) -> list[list[Tensor]]:
    """What each rank has sent to this one, by rank.

    Args:
        sent: tensors of one dtype for each rank.
        shapes: of what comes from each rank.
        ranks: all of them must call it.
        like: of the dtype and on the device of what comes; None: as what is sent.
    """
    flat = [tensor.reshape(-1) for tensors in sent for tensor in tensors]
    example = flat[0] if like is None else like
    given = torch.cat(flat) if flat else example.new_empty(0)
    sizes = [[prod(shape) for shape in of_rank] for of_rank in shapes]
    taken = example.new_empty(sum(map(sum, sizes)))
    dist.all_to_all_single(
        taken,
        given,
        [sum(of_rank) for of_rank in sizes],
        [sum(tensor.numel() for tensor in tensors) for tensors in sent],
        group=ranks.group,
    )
    pieces = iter(torch.split(taken, [size for of_rank in sizes for size in of_rank]))
    return [[next(pieces).view(shape) for shape in of_rank] for of_rank in shapes]


def _like(part: Tensor, tensor: DTensor) -> DTensor:
    """A rank's part as a tensor that is sharded like another one."""
    return DTensor.from_local(
        part.to(tensor.dtype),
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=torch.empty(tensor.shape, device="meta").stride(),
    )
