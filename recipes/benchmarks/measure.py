"""Times of cases that take turns in one process: medians, quantiles, and how a time grows with a size."""

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
    """One thing to time."""

    name: str
    run: Callable[[], object]
    """What is timed; all that it needs was made before, and what it returns is dropped outside of the timing."""
    settle: Callable[[], object] = lambda: None
    """Runs before the timing, to end what other cases have left behind."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the repeats of a case took, in milliseconds."""

    median_ms: float
    low_ms: float
    """The 25 % quantile."""
    high_ms: float
    """The 75 % quantile."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """The median and the quartiles, linear between neighbours; of two repeats or more."""
        low, median, high = statistics.quantiles((1e3 * each for each in seconds), n=4, method="inclusive")
        return cls(median_ms=median, low_ms=low, high_ms=high)


def measure(
    cases: Sequence[Case],
    repeats: int,
    *,
    synchronize: Callable[[], object],
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """What each case takes, by its name, in the order of `cases`.

    Every repeat runs every case once, in an order drawn anew: a machine that slows down for a while then slows all of
    them, and no case always follows the same other. One more repeat before the others warms up and is not counted.

    Args:
        cases: what to time; their names differ.
        repeats: how many are counted, two or more.
        synchronize: waits until the device has done its work; called whenever the clock is about to be read.
        seed: of the order.
        clock: in seconds.
    """
    assert repeats > 1
    assert len({case.name for case in cases}) == len(cases)
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    order, generator = list(cases), random.Random(seed)
    with _no_garbage_collection():
        for repeat in range(repeats + 1):
            generator.shuffle(order)
            gc.collect()  # between the timings, as it cannot be within them: memory would only grow
            for case in order:
                taken = _time(case, synchronize, clock)
                if repeat:
                    seconds[case.name].append(taken)
    return {name: Timing.of(taken) for name, taken in seconds.items()}


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The slope of log(time) against log(size), by least squares: 1 where the time is proportional to the size."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(t) for t in times]).slope


def _time(case: Case, synchronize: Callable[[], object], clock: Callable[[], float]) -> float:
    case.settle()
    synchronize()
    start = clock()
    result = case.run()
    synchronize()
    taken = clock() - start
    del result  # held until here, so that freeing it is not timed
    return taken


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # what there was before is no garbage of the cases', and collecting it would take long each time
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
