"""Timing of cases that run alternately in one process: medians, quartiles, and how a time grows with a size."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """A function to time."""

    name: str
    run: Callable[[], object]
    """The timed call. Its inputs already exist, and its result is freed after the clock is read."""
    prepare: Callable[[], object] = lambda: None
    """Runs before the timing, to finish background work of other cases."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times of a case's repeats, in milliseconds."""

    median_ms: float
    low_ms: float
    """The 25 % quantile."""
    high_ms: float
    """The 75 % quantile."""

    @classmethod
    def from_seconds(cls, seconds: Sequence[float]) -> Timing:
        """Median and quartiles, interpolated linearly, of at least two repeats."""
        low, median, high = statistics.quantiles((1e3 * second for second in seconds), n=4, method="inclusive")
        return cls(median_ms=median, low_ms=low, high_ms=high)


def measure(
    cases: Sequence[Case],
    repeats: int,
    *,
    synchronize: Callable[[], object],
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """The timing of each case by its name, in the order of `cases`.

    Every repeat runs every case once, in a new random order: when the machine slows down for a while, that affects all
    cases, and no case always runs after the same other one. One extra repeat at the start warms up and is not counted.

    Args:
        cases: what to time; their names must differ.
        repeats: the number of counted repeats, at least two.
        synchronize: waits until the device is idle; called before each reading of the clock.
        seed: of the random order.
        clock: returns seconds.
    """
    assert repeats > 1
    assert len({case.name for case in cases}) == len(cases)
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    order, generator = list(cases), random.Random(seed)
    with _no_garbage_collection():
        for repeat in range(repeats + 1):
            generator.shuffle(order)
            gc.collect()  # here because it is off during the timings, and memory would only grow
            for case in order:
                elapsed = _time(case, synchronize, clock)
                if repeat:
                    seconds[case.name].append(elapsed)
    return {name: Timing.from_seconds(elapsed) for name, elapsed in seconds.items()}


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The least-squares slope of log(time) over log(size): 1 where the time is proportional to the size."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(t) for t in times]).slope


def _time(case: Case, synchronize: Callable[[], object], clock: Callable[[], float]) -> float:
    case.prepare()
    synchronize()
    start = clock()
    result = case.run()
    synchronize()
    elapsed = clock() - start
    del result  # freed here, so that freeing it is not timed
    return elapsed


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # existing objects are not the cases' garbage, and scanning them would take long each time
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
