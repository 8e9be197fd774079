"""Many tensors, each reduced to a number: in few kernels, one collective, and one copy that nobody waits for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .bundle import Bundle, Part

_HALVES = (torch.float16, torch.bfloat16)


class Reduce(Enum):
    """How a tensor becomes a number."""

    SQUARES = "the sum of its squares"
    SIZES = "the sum of its values, of which none is negative"
    SUM = "the sum of its values"
    VALUE = "the one value that it has, the same on every rank"


class Reductions:
    """Numbers on their way from devices to the host.

    A DTensor counts whole, whatever part of it this rank holds; where there is one, every rank must add the same and
    `send`. Sums are of float32 within a tensor, 1e-6 of them off at most, and of float64 beyond.
    """

    def __init__(self) -> None:
        self._batches: dict[torch.device, list[_Batch]] = {}
        self._count = 0
        self._flights: list[_Flight] = []

    @torch.no_grad()
    def add(self, tensors: Bundle | Sequence[Tensor], *hows: Reduce) -> None:
        """Reduce these, which may change from here on; their numbers come next in the result, one way after the other.

        Ways that are asked for together share the reading of memory.
        """
        bundle = tensors if isinstance(tensors, Bundle) else Bundle(tensors)
        for part in bundle.parts:
            found = _by_rows(part, hows) if part.rows else [_together(part.tensors, how) for how in hows]
            for number, (how, numbers) in enumerate(zip(hows, found, strict=True)):
                # At once, while the numbers are still in the cache.
                vector = _vector(numbers, how, part.owners)
                batch = _Batch(how, self._count + number * len(bundle.sizes), part, vector)
                self._batches.setdefault(part.tensors[0].device, []).append(batch)
        self._count += len(hows) * len(bundle.sizes)

    @torch.no_grad()
    def send(self) -> None:
        """Let the numbers go: one vector from each device, summed over ranks where one holds but a part."""
        for batches in self._batches.values():
            summed = [batch for batch in batches if batch.how is not Reduce.VALUE]
            values = [batch for batch in batches if batch.how is Reduce.VALUE]
            vectors = [batch.vector for batch in summed]
            cuts = [cut for batch in summed for cut in batch.part.cuts]
            if any(cuts):
                vectors = [_over_ranks(torch.cat(vectors), cuts)]
            vectors += [batch.vector for batch in values]
            places = [batch.first + place for batch in (*summed, *values) for place in batch.part.places]
            self._flights.append(_Flight(torch.cat(vectors), places))
        self._batches = {}

    @property
    def arrived(self) -> bool:
        """Whether `numbers` would have nothing to wait for."""
        return all(flight.landed for flight in self._flights)

    def numbers(self) -> list[float]:
        """All of them, in the order in which they were added; waits for those under way."""
        found = [math.nan] * self._count
        for flight in self._flights:
            for place, number in zip(flight.places, flight.numbers(), strict=True):
                found[place] = number
        return found


class _Batch(NamedTuple):
    """A part of a bundle, reduced in one way."""

    how: Reduce
    first: int
    """Where the bundle's numbers begin in the result."""
    part: Part
    vector: Tensor
    """One number for each tensor, in float64 where the device has it."""


class _Flight:
    """A vector's copy to the host, into pinned memory where it comes from a GPU."""

    def __init__(self, vector: Tensor, places: list[int]) -> None:
        self.places = places
        self._event: torch.cuda.Event | None = None
        if vector.is_cuda:
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vector.device))
        else:
            self._host = vector.cpu()

    @property
    def landed(self) -> bool:
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def numbers(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers


def _vector(numbers: Sequence[Tensor], how: Reduce, owners: Tensor | None) -> Tensor:
    """One number for each tensor, in float64 where the device has it.

    Args:
        numbers: norms in place of sums of squares, which might not fit their type: of each tensor, or `(n,)` of its
            rows.
        how: they were reduced.
        owners: of rows.
    """
    vector = torch.stack(numbers) if owners is None else torch.cat(numbers)  # type: ignore[arg-type]
    vector = vector.to(torch.float32 if vector.device.type == "mps" else torch.float64)
    if how is Reduce.SQUARES:
        vector = vector.square_()
    return vector if owners is None else vector.new_zeros(len(numbers)).index_add_(0, owners, vector)


def _together(tensors: list[Tensor] | tuple[Tensor, ...], how: Reduce) -> Sequence[Tensor]:
    """A number for each, from one call for all where there is one."""
    if how is Reduce.VALUE:
        return tensors
    if how is Reduce.SUM:
        return [tensor.sum(dtype=_wide(tensor)) for tensor in tensors]
    return torch._foreach_norm(tensors, 2.0 if how is Reduce.SQUARES else 1.0, dtype=_wide(tensors[0]))


def _by_rows(part: Part, hows: Sequence[Reduce]) -> list[list[Tensor]]:
    """The same for large tensors on the CPU, by way: `(n,)` numbers of the rows of each.

    There, the one call for all sums each tensor in one thread and one float32, which is off by 1e-2 at 10⁸ elements.
    Beside a large tensor a call of its own does not count, and the next one finds it in the cache.
    """
    found: list[list[Tensor]] = [[] for _ in hows]
    dtype = _wide(part.tensors[0])
    for rows in part.rows:
        for numbers, how in zip(found, hows, strict=True):
            numbers.append(_of_rows(rows, how, dtype))
    return found


def _of_rows(rows: Tensor | tuple[Tensor, ...], how: Reduce, dtype: torch.dtype | None) -> Tensor:
    if how is Reduce.SQUARES and isinstance(rows, tuple):
        return torch.stack(torch._foreach_norm(rows, 2.0, dtype=dtype))
    if how is Reduce.SQUARES:
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
        return norms
    return rows.sum(1, dtype=dtype) if isinstance(rows, Tensor) else torch.stack([row.sum(dtype=dtype) for row in rows])


def _wide(tensor: Tensor) -> torch.dtype | None:
    """In what it is summed: 16 bits would lose the small ones."""
    return torch.float32 if tensor.dtype in _HALVES else None


def _over_ranks(vector: Tensor, cuts: Sequence[int]) -> Tensor:
    """Sum the ranks' shares: what several of them hold counts once."""
    world = dist.get_world_size()
    shares = torch.tensor([max(cut, 1) / world for cut in cuts], dtype=vector.dtype)
    if vector.is_cuda:
        shares = shares.pin_memory()
    vector.mul_(shares.to(vector.device, non_blocking=True))
    dist.all_reduce(vector)
    return vector
