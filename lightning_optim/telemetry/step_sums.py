"""The sums that an optimizer's kernels have added up in a step, by the signals of telemetry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ..core.origin import is_ours
from ..optim.base import AdaptiveOptimizer
from ..optim.composite import Composite
from ..optim.fused.requested_sums import SQUARES, UPDATE, KernelSums, RequestedSums
from ..optim.state_keys import MASTER
from .inventory import SignalBatch, SignalParameters
from .reading import SECOND_MOMENTS, SignalTensors, buffer_signal
from .reductions import KnownSums, Reduce
from .tensor_batch import Indices


def sees_what_step_left(optimizer: Optimizer, hook: Callable[..., Any]) -> bool:
    """Whether one of an optimizer's step hooks runs before any other that might change a tensor after the step.

    Hooks of this package change none.
    """
    earlier = takewhile(lambda other: other != hook, optimizer._optimizer_step_post_hooks.values())
    return all(map(is_ours, earlier))


class StepSums:
    """Asks an optimizer of ours for the sums of its next step; of other optimizers nothing is known.

    Args:
        optimizer: about to step.
        names: gives those of its parameters, by their `id`.
        update: whether to ask for the updates of parameters.
    """

    def __init__(self, optimizer: Optimizer, names: Callable[[], Mapping[int, str]], *, update: bool) -> None:
        self._names = names
        self._requested = RequestedSums(update=update, summed_buffers=SECOND_MOMENTS)
        self.covered: set[Tensor] = set()
        """Parameters whose update is known after the step: from `before`, or summed, or else they have not changed."""

        if isinstance(optimizer, (AdaptiveOptimizer, Composite)):
            self.covered = set(optimizer.measure_step(self._requested))

    def found(self) -> FoundSums:
        """What is known after the step."""
        return FoundSums(self._requested, self._names)


class FoundSums:
    """What is known of a step that has been taken.

    Args:
        requested: from the optimizer, after the step.
        names: gives those of its parameters, by their `id`.
    """

    def __init__(self, requested: RequestedSums, names: Callable[[], Mapping[int, str]]) -> None:
        self.before = requested.before
        """Copies of covered parameters from before the step."""
        self.tables = tuple([(sums.table, sums.kinds) for sums in requested.found])
        """What has been summed; as long as it is equal, of the same tensors."""
        self._found, self._names = requested.found, names
        self._values = [row for sums in requested.found for row in sums.values]

    def find(self, batch: SignalBatch) -> list[KnownSums]:
        """What is known of the tensors of a batch: gradients, parameters, or buffers."""
        if batch.places is None or batch.places[0] != self.tables:
            batch.places = self.tables, _find_places(tuple(self._rows), batch.parameters)
        return self._select(batch.places[1])

    def find_updates(self, parameters: SignalParameters) -> list[KnownSums]:
        """What is known of the updates of these parameters."""
        return self._select(_find_places(tuple(self._rows), parameters))

    def one_of_each_launch(self, step_counts: Sequence[SignalTensors]) -> list[SignalTensors]:
        """One step count for the parameters that are stepped together, which have the same."""
        chosen = {row.names[0] for row in self._rows}
        return [
            counts._replace(tensors=[tensor for name, tensor in zip(*counts[2:], strict=True) if name in chosen])
            for counts in step_counts
        ]

    @cached_property
    def _rows(self) -> list[_Row]:
        names = self._names()
        return [row for sums in self._found for row in _rows(sums, names)]

    def _select(self, places: Sequence[_Place]) -> list[KnownSums]:
        return [
            KnownSums(place.kind, place.indices, torch.cat([place.select(self._values[i], i) for i in place.rows]))
            for place in places
        ]


class _Row(NamedTuple):
    """What one sum for each of several parameters is of."""

    signal: str
    kind: Reduce
    names: tuple[str, ...]
    """Of the parameters."""
    device: torch.device


def _rows(sums: KernelSums, names: Mapping[int, str]) -> list[_Row]:
    """What a kernel has added up, by signal."""
    params, device = tuple([names[id(param)] for param in sums.params]), sums.values.device
    has_master = (SQUARES, "rounded") in sums.kinds
    return [
        _Row(_signal(of, has_master), Reduce.SQUARES if kind == SQUARES else Reduce.NON_NEGATIVE_SUM, params, device)
        for kind, of in sums.kinds
    ]


def _signal(of: str, has_master: bool) -> str:
    """The signal of an argument of a kernel."""
    known = {"g": "norm/grad", "rounded": "norm/param", UPDATE: "norm/update"}
    known["p"] = buffer_signal(MASTER) if has_master else "norm/param"
    return known.get(of) or buffer_signal(of.removeprefix("state."))


class _Place(NamedTuple):
    """Where the sums of some rows, of one kind and on one device, belong in a batch."""

    kind: Reduce
    indices: Indices
    """Of the tensors in the batch, for one row after the other."""
    rows: list[int]
    kept: dict[int, list[int]]
    """Of rows that are not in the batch as a whole: the positions of those sums that are."""

    def select(self, values: Tensor, row: int) -> Tensor:
        """The sums of a row that are in the batch."""
        return values[self.kept[row]] if row in self.kept else values


@lru_cache(maxsize=32)
def _find_places(rows: tuple[_Row, ...], parameters: SignalParameters) -> list[_Place]:
    """Where rows belong. Cached: nearly all steps have the same ones.

    Args:
        rows: what has been summed.
        parameters: the tensors of the batch.
    """
    positions: dict[str, dict[str, int]] = {}
    number = count()
    for signal, names in parameters:
        positions.setdefault(signal, {}).update(zip(names, number, strict=False))
    places: dict[Any, tuple[list[int], list[int], dict[int, list[int]]]] = {}
    for row, (signal, kind, names, device) in enumerate(rows):
        of_signal = positions.get(signal, {})
        kept = [i for i, name in enumerate(names) if name in of_signal]
        if kept:
            indices, of_place, partial = places.setdefault((kind, device), ([], [], {}))
            indices += [of_signal[names[i]] for i in kept]
            of_place.append(row)
            if len(kept) < len(names):
                partial[row] = kept
    return [_Place(kind, np.array(indices), of_place, kept) for (kind, _), (indices, of_place, kept) in places.items()]
