"""The sums that an optimizer's kernels have added up in a step, by the signals of telemetry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
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
from .inventory import SignalParameters
from .reading import SECOND_MOMENTS, buffer_signal
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
        names: of its parameters, by their `id`.
        update: whether to ask for the updates of parameters.
    """

    def __init__(self, optimizer: Optimizer, names: Mapping[int, str], *, update: bool) -> None:
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
        names: of its parameters, by their `id`.
    """

    def __init__(self, requested: RequestedSums, names: Mapping[int, str]) -> None:
        self.before = requested.before
        """Copies of covered parameters from before the step."""
        self._rows = [row for sums in requested.found for row in _rows(sums, names)]

    def find(self, parameters: SignalParameters) -> list[KnownSums]:
        """What is known of the tensors of a batch: gradients, parameters, buffers, or updates.

        Args:
            parameters: of the batch, by signal.
        """
        keys = tuple([(row.signal, row.kind, row.names, row.values.device) for row in self._rows])
        return [
            KnownSums(place.kind, place.indices, torch.cat([place.select(self._rows[i].values, i) for i in place.rows]))
            for place in _find_places(keys, parameters)
        ]


class _Row(NamedTuple):
    """One sum for each of several parameters."""

    signal: str
    kind: Reduce
    names: tuple[str, ...]
    """Of the parameters."""
    values: Tensor


def _rows(sums: KernelSums, names: Mapping[int, str]) -> list[_Row]:
    """What a kernel has added up, by signal."""
    params = tuple([names[id(param)] for param in sums.params])
    has_master = (SQUARES, "rounded") in sums.kinds
    return [
        _Row(_signal(of, has_master), Reduce.SQUARES if kind == SQUARES else Reduce.NON_NEGATIVE_SUM, params, values)
        for (kind, of), values in zip(sums.kinds, sums.values, strict=True)
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
def _find_places(
    keys: tuple[tuple[str, Reduce, tuple[str, ...], torch.device], ...], parameters: SignalParameters
) -> list[_Place]:
    """Where rows belong. Cached: nearly all steps have the same ones.

    Args:
        keys: of each row, what it is of, its kind, the names of its parameters, and the device of its sums.
        parameters: the tensors of the batch.
    """
    positions: dict[str, dict[str, int]] = {}
    number = count()
    for signal, names in parameters:
        positions.setdefault(signal, {}).update(zip(names, number, strict=False))
    places: dict[Any, tuple[list[int], list[int], dict[int, list[int]]]] = {}
    for row, (signal, kind, names, device) in enumerate(keys):
        of_signal = positions.get(signal, {})
        kept = [i for i, name in enumerate(names) if name in of_signal]
        if kept:
            indices, rows, partial = places.setdefault((kind, device), ([], [], {}))
            indices += [of_signal[names[i]] for i in kept]
            rows.append(row)
            if len(kept) < len(names):
                partial[row] = kept
    return [_Place(kind, np.array(indices), rows, kept) for (kind, _), (indices, rows, kept) in places.items()]
