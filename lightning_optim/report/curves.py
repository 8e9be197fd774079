"""The curves of a run, sorted by optimizer, signal and group."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curve(NamedTuple):
    """Points in the order of their steps, each step once."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def highest(self) -> float | None:
        """The highest finite value; None if there is none."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite.max()) if len(finite) else None

    def at(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The last value until each step, as of what is logged where it changes; before the first step, the first."""
        return self.values[np.maximum(np.searchsorted(self.steps, steps, "right") - 1, 0)]

    def join(self, other: Curve) -> Curve:
        """This curve and another one of the same signal; the one that starts later replaces the rest of the other."""
        if not len(self.steps) or not len(other.steps):
            return self if len(self.steps) else other
        first, last = (self, other) if self.steps[0] <= other.steps[0] else (other, self)
        count = bisect_left(first.steps, last.steps[0])
        return Curve(
            np.concatenate([first.steps[:count], last.steps]), np.concatenate([first.values[:count], last.values])
        )


class Points:
    """Collects the points of a curve in the order in which they were written.

    Where the step goes back, the run was resumed from there: what it had written from that step on is dropped.
    """

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[float] = []

    def add(self, step: int, value: float) -> bool:
        """Append a point; returns whether points of later steps were dropped for it."""
        last = self._steps[-1] if self._steps else -1
        if step <= last:
            self.drop_from(step)
        self._steps.append(step)
        self._values.append(value)
        return step < last

    def drop_from(self, step: int) -> None:
        """Drop this step and all later ones."""
        start = bisect_left(self._steps, step)
        del self._steps[start:], self._values[start:]

    def curve(self) -> Curve:
        """What is left."""
        return Curve(np.array(self._steps, np.int64), np.array(self._values, np.float64))


class Text(NamedTuple):
    """Markdown that was logged at a step."""

    step: int
    text: str


@dataclass(kw_only=True)
class Log:
    """What a logger has written to one folder, by tag."""

    points: dict[str, Points] = field(default_factory=dict)
    texts: dict[str, list[Text]] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What the reader of the page should know about the files."""
    resumed_at: set[int] = field(default_factory=set)
    """The steps that a curve went back to."""

    def add(self, tag: str, step: int, value: float) -> None:
        """Append a point to a curve."""
        points = self.points.get(tag)
        if points is None:
            points = self.points[tag] = Points()
        if points.add(step, value):
            self.resumed_at.add(step)


class Thaw(NamedTuple):
    """A step at which groups joined the optimizer."""

    step: int
    label: str


@dataclass(frozen=True, kw_only=True)
class OptimizerCurves:
    """What the monitor has logged of one optimizer."""

    root: str
    """The first segment of its tags: `optim`, or `optim_<class>` if there are several optimizers."""
    groups: tuple[str, ...]
    """In the order in which they are listed: that of the plan, as far as it is known."""
    signals: Mapping[str, Mapping[str, Curve]]
    """By signal, such as `norm/grad`, and group; also `all`."""
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By group, as logged at the start: `lr`, `eps`, `beta1`, ..."""
    thaws: tuple[Thaw, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    """The cells of the last group table that was logged, its first row the names of the columns."""
    nonfinite: tuple[Text, ...] = ()
    """The parameters that were not finite, as the monitor has named them."""

    def get(self, signal: str, group: str) -> Curve | None:
        """A group's curve of a signal; None if there is none, or it has no points."""
        curve = self.signals.get(signal, {}).get(group)
        return curve if curve is not None and len(curve.steps) else None

    def of_groups(self, signal: str) -> Iterator[tuple[str, Curve]]:
        """Each group that has this signal, with its curve."""
        for group in self.groups:
            if (curve := self.get(signal, group)) is not None:
                yield group, curve


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its optimizers, and its losses."""

    name: str
    source: str
    """The files that were read, in words."""
    optimizers: tuple[OptimizerCurves, ...]
    losses: Mapping[str, Curve] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, int]:
        """The first and the last logged step."""
        curves = [
            curve
            for optimizer in self.optimizers
            for by_group in optimizer.signals.values()
            for curve in by_group.values()
            if len(curve.steps)
        ]
        return min(int(curve.steps[0]) for curve in curves), max(int(curve.steps[-1]) for curve in curves)
