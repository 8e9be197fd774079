"""A run in a few numbers by group, and as one row beside other runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..core.number_format import format_number
from ..groups.group import ALL
from .curves import Curve, OptimizerCurves, Run

_NUM_POINTS = 10
_COLUMNS = {
    "update ratio": "ratio/update_param",
    "norm of the gradient": "norm/grad",
    "norm of the weights": "norm/param",
}


def group_rows(curves: OptimizerCurves) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and the cells of each group: its first step, highest lr, and how its curves begin and end."""
    seconds = [signal for signal in curves.signals if signal.startswith("rms/")]
    columns = {**_COLUMNS, **{f"rms of {signal.removeprefix('rms/')}": signal for signal in seconds}}
    columns = {name: signal for name, signal in columns.items() if any(curves.of_groups(signal))}
    rows = [[*_start_and_lr(curves, group), *_ends(curves, group, columns.values())] for group in curves.groups]
    return ["group", "first step", "highest lr", *columns], rows


def run_row(run: Run) -> tuple[list[str], list[str]]:
    """The names of the columns, and the cells of a run, over all its groups."""
    first, last = run.steps
    cells = [f"{first:,} to {last:,}", f"{sum(len(curves.groups) for curves in run.optimizers):,}"]
    peaks = [curve.highest() for curves in run.optimizers for _, curve in curves.of_groups("lr")]
    cells.append(format_number(max((peak for peak in peaks if peak is not None), default=None)))
    cells += [
        _join(begin_and_end(curves.get(signal, ALL)) for curves in run.optimizers) for signal in _COLUMNS.values()
    ]
    cells.append(begin_and_end(next(iter(run.losses.values()), None)))
    return ["steps", "groups", "highest lr", *_COLUMNS, "loss"], cells


def begin_and_end(curve: Curve | None) -> str:
    """The medians of the first ten points and of the last ten; '' where there is no curve."""
    if curve is None or not len(curve.steps):
        return ""
    ends = (curve.values[:_NUM_POINTS], curve.values[-_NUM_POINTS:])
    texts = [format(float(np.median(values)), ".2g") for values in ends]
    return texts[0] if len(curve.steps) == 1 else " → ".join(texts)


def _start_and_lr(curves: OptimizerCurves, group: str) -> Iterator[str]:
    starts = [int(curve.steps[0]) for signal in curves.signals if (curve := curves.get(signal, group)) is not None]
    lr = curves.get("lr", group)
    yield from (group, format_number(min(starts, default=None)), format_number(lr and lr.highest()))


def _ends(curves: OptimizerCurves, group: str, signals: Iterable[str]) -> list[str]:
    return [begin_and_end(curves.get(signal, group)) for signal in signals]


def _join(texts: Iterator[str]) -> str:
    return "; ".join(filter(None, texts))
