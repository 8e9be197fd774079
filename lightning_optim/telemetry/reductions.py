"""Many tensors, each reduced to a number: in few kernels, one collective, and one copy that nobody waits for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

_LARGE = 1 << 16
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
    def add(self, tensors: Sequence[Tensor], *hows: Reduce) -> None:
        """Reduce these, which may change from here on; their numbers come next in the result, one way after the other.

        Ways that are asked for together share the reading of memory.
        """
        cut = [_local(tensor) if isinstance(tensor, DTensor) else (tensor, 0) for tensor in tensors]
        # A device's number takes a fifth of the time that the device itself does.
        kinds = [(t.get_device(), t.dtype, t.is_cpu and t.numel() > _LARGE) for t, _ in cut]
        for kind in dict.fromkeys(kinds):
            places = [place for place, other in enumerate(kinds) if other == kind]
            alike, cuts = [cut[place][0] for place in places], [cut[place][1] for place in places]
            numbers = _one_by_one(alike, hows) if kind[2] else [_together(alike, how) for how in hows]
            for number, how in enumerate(hows):
                first = self._count + number * len(tensors)
                batch = _Batch(how, [first + place for place in places], cuts, numbers[number])
                self._batches.setdefault(alike[0].device, []).append(batch)
        self._count += len(hows) * len(tensors)

    @torch.no_grad()
    def send(self) -> None:
        """Let the numbers go: one vector from each device, summed over ranks where one holds but a part."""
        for batches in self._batches.values():
            summed = [batch for batch in batches if batch.how is not Reduce.VALUE]
            values = [batch for batch in batches if batch.how is Reduce.VALUE]
            vectors = [batch.vector() for batch in summed]
            cuts = [cut for batch in summed for cut in batch.cuts]
            if any(cuts):
                vectors = [_over_ranks(torch.cat(vectors), cuts)]
            vectors += [batch.vector() for batch in values]
            places = [place for batch in (*summed, *values) for place in batch.places]
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
    """Tensors of one device and type, reduced in one way."""

    how: Reduce
    places: list[int]
    """Where each one's number comes in the result."""
    cuts: list[int]
    """Into how many parts each is cut; 0 for a plain one, which every rank has whole."""
    numbers: Sequence[Tensor]
    """Norms in place of sums of squares, which might not fit their type; one each, or each `(n,)` to be summed."""

    def vector(self) -> Tensor:
        """One number for each tensor, in float64 where the device has it."""
        several = self.numbers[0].ndim > 0
        numbers = torch.cat(self.numbers) if several else torch.stack(self.numbers)  # type: ignore[arg-type]
        numbers = numbers.to(torch.float32 if numbers.device.type == "mps" else torch.float64)
        if self.how is Reduce.SQUARES:
            numbers = numbers.square_()
        if not several:
            return numbers
        counts = torch.tensor([len(each) for each in self.numbers])
        owners = torch.repeat_interleave(counts)
        return numbers.new_zeros(len(counts)).index_add_(0, owners, numbers)


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


def _local(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's part of a tensor, and into how many parts it is cut."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    if any(placement.is_partial() for placement in tensor.placements):
        return tensor.full_tensor(), 0
    mesh = tensor.device_mesh
    cuts = [mesh.size(dim) for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return tensor.to_local(), math.prod(cuts)


def _together(tensors: list[Tensor], how: Reduce) -> Sequence[Tensor]:
    """A number for each, from one call for all where there is one."""
    if how is Reduce.VALUE:
        return tensors
    if how is Reduce.SUM:
        return [tensor.sum(dtype=_wide(tensor)) for tensor in tensors]
    return torch._foreach_norm(tensors, 2.0 if how is Reduce.SQUARES else 1.0, dtype=_wide(tensors[0]))


def _one_by_one(tensors: list[Tensor], hows: Sequence[Reduce]) -> list[list[Tensor]]:
    """The same for large tensors on the CPU, by way.

    There, the one call for all sums each tensor in one thread and one float32, which is off by 1e-2 at 10⁸ elements.
    Beside a large tensor a call of its own does not count, and the next one finds it in the cache.
    """
    found: list[list[Tensor]] = [[] for _ in hows]
    for tensor in tensors:
        for numbers, how in zip(found, hows, strict=True):
            numbers.append(_norms_of_rows(tensor) if how is Reduce.SQUARES else tensor.sum(dtype=_wide(tensor)))
    return found


def _wide(tensor: Tensor) -> torch.dtype | None:
    """In what it is summed: 16 bits would lose the small ones."""
    return torch.float32 if tensor.dtype in _HALVES else None


def _norms_of_rows(tensor: Tensor) -> Tensor:
    """A large tensor as rows, which threads share: `(n,)` norms of them."""
    rows = _num_rows(tensor.numel())
    if rows and tensor.is_contiguous():
        norms: Tensor = torch.linalg.vector_norm(tensor.view(rows, -1), dim=1, dtype=_wide(tensor))
        return norms
    # In the order of memory, so that reshaping copies nothing.
    flat = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).reshape(-1)
    pieces = torch.split(flat, _LARGE)
    norms = torch.stack(torch._foreach_norm(pieces, 2.0, dtype=_wide(tensor)))
    return norms


@lru_cache(maxsize=4096)
def _num_rows(size: int) -> int:
    """How many equal rows of no more than `_LARGE` elements make up so many; 0 where no good number does."""
    least = -(-size // _LARGE)
    return next((rows for rows in range(least, 2 * least + 16) if size % rows == 0), 0)


def _over_ranks(vector: Tensor, cuts: Sequence[int]) -> Tensor:
    """Sum the ranks' shares: what several of them hold counts once."""
    world = dist.get_world_size()
    shares = torch.tensor([max(cut, 1) / world for cut in cuts], dtype=vector.dtype)
    if vector.is_cuda:
        shares = shares.pin_memory()
    vector.mul_(shares.to(vector.device, non_blocking=True))
    dist.all_reduce(vector)
    return vector
