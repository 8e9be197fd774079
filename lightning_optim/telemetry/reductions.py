"""Many tensors, each reduced to a number: in few kernels, one collective, and one copy that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from .bundle import Bundle, Part, Places

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
    `send`. Sums are of float32 within a tensor, 1e-5 of them off at most, and of float64 beyond.
    """

    def __init__(self) -> None:
        self._batches: list[_Batch] = []
        self._count = 0
        self._flights: list[_Flight] = []

    @torch.no_grad()
    def add(self, tensors: Bundle | Sequence[Tensor], *hows: Reduce) -> None:
        """Reduce these, which may change from here on; their numbers come next in the result, one way after the other.

        Ways that are asked for together share the reading of memory.
        """
        bundle = tensors if isinstance(tensors, Bundle) else Bundle(tensors)
        for part in bundle.parts:
            for number, (how, numbers) in enumerate(zip(hows, _reduced(part, hows), strict=True)):
                places = part.places + (self._count + number * len(bundle.sizes))
                self._batches.append(_Batch(how, places, part.cuts, numbers))
        self._count += len(hows) * len(bundle.sizes)

    @torch.no_grad()
    def send(self) -> None:
        """Let the numbers go: one vector from each device, summed over ranks where one holds but a part."""
        by_device: dict[torch.device, list[_Batch]] = {}
        for batch in self._batches:
            by_device.setdefault(batch.numbers[0].device, []).append(batch)
        self._flights += [_Flight(*_joined(batches, self._count)) for batches in by_device.values()]
        self._batches = []

    @property
    def arrived(self) -> bool:
        """Whether `numbers` would have nothing to wait for."""
        return all(flight.done for flight in self._flights)

    def numbers(self) -> list[float]:
        """All of them, in the order in which they were added; waits for those under way."""
        found = np.zeros(self._count)
        for flight in self._flights:
            found += np.bincount(flight.places, flight.numbers(), self._count)
        numbers: list[float] = found.tolist()
        return numbers


class _Batch(NamedTuple):
    """A part of a bundle, reduced in one way."""

    how: Reduce
    places: Places
    """`(numbers,)`: which number of the result each is added to."""
    cuts: NDArray[np.int64] | None
    """`(numbers,)`: of how many ranks' shares each is one; None where every rank has them all whole."""
    numbers: list[Tensor]
    """Vectors; norms in place of sums of squares, which might not fit their type."""


def _joined(batches: Sequence[_Batch], count: int) -> tuple[Tensor, Places]:
    """All numbers of a device, `(n,)`, in float64 where it has that, and to which of `count` each is added."""
    squares = [batch for batch in batches if batch.how is Reduce.SQUARES]
    values = [batch for batch in batches if batch.how is Reduce.VALUE]
    summed = squares + [batch for batch in batches if batch.how in (Reduce.SIZES, Reduce.SUM)]
    vector = torch.cat([numbers for batch in summed + values for numbers in batch.numbers])
    vector = vector.to(_finest(vector.device))
    vector[: sum(len(batch.places) for batch in squares)].square_()
    places = np.concatenate([batch.places for batch in summed + values])
    if any(batch.cuts is not None for batch in summed):
        cuts = [np.ones(len(batch.places)) if batch.cuts is None else batch.cuts for batch in summed]
        return _over_ranks(vector, places, np.concatenate(cuts), count)
    return vector, places


def _over_ranks(vector: Tensor, places: Places, cuts: NDArray[Any], count: int) -> tuple[Tensor, Places]:
    """The same, with the ranks' shares of the first `len(cuts)` numbers added up: what several ranks hold counts once.

    By tensor, as one may be cut into shares of different sizes, and these into different rows.
    """
    index, shares = (_sent(array, vector.device) for array in (places[: len(cuts)], cuts / dist.get_world_size()))
    sums = vector.new_zeros(count).index_add_(0, index, vector[: len(cuts)] * shares)
    dist.all_reduce(sums)
    return torch.cat([sums, vector[len(cuts) :]]), np.concatenate([np.arange(count), places[len(cuts) :]])


def _sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """On the device, which nobody waits for."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class _Flight:
    """A vector's copy to the host, into pinned memory where it comes from a GPU."""

    def __init__(self, vector: Tensor, places: Places) -> None:
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
    def done(self) -> bool:
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def numbers(self) -> NDArray[np.float64]:
        """`(n,)`."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()


def _reduced(part: Part, hows: Sequence[Reduce]) -> list[list[Tensor]]:
    """A part's numbers by way: vectors, one after the other."""
    found: list[list[Tensor]] = [[_of_list(part.listed, how)] if part.listed else [] for how in hows]
    ways = [(numbers.append, _of_rows(how, part.dtype)) for numbers, how in zip(found, hows, strict=True)]
    for each in part.matrices:
        # The second way finds it in the cache.
        matrix = each if isinstance(each, Tensor) else torch.stack(each).reshape(len(each), each[0].numel())
        for append, reduce in ways:
            append(reduce(matrix))
    return found


def _of_list(tensors: list[Tensor], how: Reduce) -> Tensor:
    """A number of each, from one call for all where there is one."""
    if how is Reduce.VALUE:
        alike = len({tensor.shape for tensor in tensors}) == 1
        return _values(torch.stack(tensors) if alike else torch.cat([tensor.flatten() for tensor in tensors]))
    dtype = _wide(tensors[0].dtype)
    if how is Reduce.SUM:
        return torch.stack([tensor.sum(dtype=dtype) for tensor in tensors])
    return torch.stack(torch._foreach_norm(tensors, 2.0 if how is Reduce.SQUARES else 1.0, dtype=dtype))


def _of_rows(how: Reduce, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What takes a matrix and gives a number of each row."""
    if how is Reduce.VALUE:
        return _values
    if how is Reduce.SQUARES:
        return partial(torch.linalg.vector_norm, dim=1, dtype=_wide(dtype))
    return partial(torch.sum, dim=1, dtype=_wide(dtype))


def _values(tensor: Tensor) -> Tensor:
    """As they are, but integers, the large ones of which float32 would round."""
    return tensor.flatten() if tensor.is_floating_point() else tensor.flatten().to(_finest(tensor.device))


def _finest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _wide(dtype: torch.dtype) -> torch.dtype | None:
    """In what it is summed: 16 bits would lose the small ones."""
    return torch.float32 if dtype in _HALVES else None
