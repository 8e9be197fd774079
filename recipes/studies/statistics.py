"""Means and their 95 % intervals, by Student's t."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, at least two."""
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return Interval(statistics.fmean(values), quantile * statistics.stdev(values) / len(values) ** 0.5)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean of `values[i] - others[i]`: what two arms have in common in a seed cancels out."""
    return mean_interval([value - other for value, other in zip(values, others, strict=True)])
