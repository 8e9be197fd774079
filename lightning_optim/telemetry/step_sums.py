"""The sums that an optimizer's kernels have added up in a step, by the signals of telemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from ..optim.base import AdaptiveOptimizer
from ..optim.composite import Composite
from ..optim.fused.step_norms import SQUARES, UPDATE, StepNorms
from ..optim.state_keys import MASTER
from .inventory import SignalBatch
from .reading import SECOND_MOMENTS, buffer_signal
from .reductions import KnownSums, Reduce

_PACKAGE = __name__.partition(".")[0]


def sees_what_step_left(optimizer: Optimizer, hook: Callable[..., Any]) -> bool:
    """Whether one of an optimizer's step hooks runs before any other that might change a tensor after the step.

    Hooks of this package change none.
    """
    earlier = takewhile(lambda other: other != hook, optimizer._optimizer_step_post_hooks.values())
    return all(str(getattr(other, "__module__", "")).startswith(_PACKAGE) for other in earlier)


class StepSums:
    """Asks an optimizer of ours for the sums of its next step; of other optimizers nothing is known.

    Args:
        optimizer: about to step.
        names: of its parameters, by their `id`.
        update: whether to ask for the updates of parameters.
    """

    def __init__(self, optimizer: Optimizer, names: Mapping[int, str], *, update: bool) -> None:
        self._names = names
        self._norms = StepNorms(update=update, summed_buffers=SECOND_MOMENTS)
        self.covered: set[Tensor] = set()
        """Parameters whose update is known after the step: from `before`, or summed, or else they have not changed."""

        if isinstance(optimizer, (AdaptiveOptimizer, Composite)):
            self.covered = set(optimizer.measure_step(self._norms))

    @property
    def before(self) -> dict[Tensor, Tensor]:
        """Copies of covered parameters from before the step."""
        return self._norms.before

    @property
    def updated(self) -> set[Tensor]:
        """The parameters whose update is summed."""
        return {p for found in self._norms.found if (SQUARES, UPDATE) in found.kinds for p in found.params}

    def find(self, batch: SignalBatch) -> list[KnownSums]:
        """What is known of the tensors of a batch: gradients, parameters, buffers, or updates, after the step."""
        return [
            sums
            for row in self._rows
            if row.signal in batch.positions
            for sums in _select(row, batch.positions[row.signal])
        ]

    @cached_property
    def _rows(self) -> list[_Row]:
        """What the kernels have added up, by signal."""
        rows = []
        for found in self._norms.found:
            names = [self._names[id(param)] for param in found.params]
            has_master = (SQUARES, "rounded") in found.kinds
            for (kind, of), values in zip(found.kinds, found.values, strict=True):
                signal = _signal(of, has_master)
                reduce = Reduce.SQUARES if kind == SQUARES else Reduce.NON_NEGATIVE_SUM
                rows.append(_Row(signal, reduce, names, values))
        return rows


class _Row(NamedTuple):
    """One sum for each of several parameters."""

    signal: str
    kind: Reduce
    names: Sequence[str]
    """Of the parameters."""
    values: Tensor


def _signal(of: str, has_master: bool) -> str:
    """The signal of an argument of a kernel."""
    known = {"g": "norm/grad", "rounded": "norm/param", UPDATE: "norm/update"}
    known["p"] = buffer_signal(MASTER) if has_master else "norm/param"
    return known.get(of) or buffer_signal(of.removeprefix("state."))


def _select(row: _Row, positions: Mapping[str, int]) -> Iterator[KnownSums]:
    """The sums of a row of those tensors that a batch has at `positions`, by parameter."""
    indices = list(map(positions.get, row.names))
    if None not in indices:
        yield KnownSums(row.kind, np.array(indices), row.values)
    elif kept := [i for i, index in enumerate(indices) if index is not None]:
        yield KnownSums(row.kind, np.array([indices[i] for i in kept]), row.values[kept])
