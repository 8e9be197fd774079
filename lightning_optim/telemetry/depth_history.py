"""`DepthHistory`: signals of each layer over the steps of a run, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .depth_rows import DepthRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_COLUMNS = 512
"""Of a history: where a further step would need more, pairs of columns become one."""
RATIO, GRADIENT, LR = "ratio/update_param", "norm/grad", "lr"
SIGNALS = (RATIO, GRADIENT, LR)
_UPDATE, _PARAM = "norm/update", "norm/param"


class DepthHistory:
    """The largest value of each signal and layer in each column of steps.

    Of the groups of one layer, norms are combined (the root of the sum of their squares), the update ratio is that of
    the combined norms, and the lr is the largest.

    Args:
        rows: the layers.
    """

    def __init__(self, rows: DepthRows) -> None:
        self.rows = rows
        self._keys = [
            (row, ((GRADIENT, group), (_UPDATE, group), (_PARAM, group), (LR, group)))
            for group, row in rows.row_of.items()
        ]
        """By group, from its row to where its values are."""
        self.steps: list[int] = []
        """The first step of each column."""
        self.last_step = 0
        """That was added."""
        self._values = np.full((len(SIGNALS), len(rows.labels), MAX_COLUMNS), np.nan, dtype=np.float64)
        self._steps_per_column = 1
        self._steps_in_last = 0

    def add(self, values: Mapping[tuple[str, str], float], step: int) -> None:
        """Add the values of a step, by signal and group. A layer without values is frozen."""
        column = self._combine(values)
        if self._steps_in_last == self._steps_per_column or not self.steps:
            if len(self.steps) == MAX_COLUMNS:
                self._halve()
            self.steps.append(step)
            self._steps_in_last = 0
        last = len(self.steps) - 1
        self._values[:, :, last] = np.fmax(self._values[:, :, last], column)
        self._steps_in_last += 1
        self.last_step = step

    def read(self, signal: str) -> NDArray[np.float64]:
        """A signal by layer and column: NaN where the layer was frozen, infinite where a value was not finite."""
        return self._values[SIGNALS.index(signal), :, : len(self.steps)]

    def has(self, signal: str) -> bool:
        """Whether a signal has any value."""
        return not bool(np.isnan(self.read(signal)).all())

    def _combine(self, values: Mapping[tuple[str, str], float]) -> list[list[float]]:
        """The values of each signal and layer."""
        get, num_rows = values.get, len(self.rows.labels)
        gradient, update, param = [0.0] * num_rows, [0.0] * num_rows, [0.0] * num_rows
        ratios, gradients, lrs = [math.nan] * num_rows, [math.nan] * num_rows, [math.nan] * num_rows
        for row, keys in self._keys:
            if (value := get(keys[0])) is not None:
                gradient[row] += value * value
                gradients[row] = _finite_or_inf(math.sqrt(gradient[row]))
            if (value := get(keys[1])) is not None:
                update[row] += value * value
                param[row] += get(keys[2], 0.0) * get(keys[2], 0.0)
                ratio = math.sqrt(update[row]) / math.sqrt(param[row]) if param[row] else 0.0
                ratios[row] = _finite_or_inf(ratio)
            if (value := get(keys[3])) is not None:
                lrs[row] = _finite_or_inf(value if math.isnan(lrs[row]) else max(lrs[row], value))
        return [ratios, gradients, lrs]

    def _halve(self) -> None:
        pairs = self._values.reshape(len(SIGNALS), -1, MAX_COLUMNS // 2, 2)
        self._values[:, :, : MAX_COLUMNS // 2] = np.fmax(pairs[..., 0], pairs[..., 1])
        self._values[:, :, MAX_COLUMNS // 2 :] = np.nan
        self.steps = self.steps[::2]
        self._steps_per_column *= 2


def _finite_or_inf(value: float) -> float:
    return value if math.isfinite(value) else math.inf
