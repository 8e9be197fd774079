"""From numbers of tensors to signals of groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

ALL = "all"
# Sums that no curve shows, for one that does.
DOT, MOMENTUM = "dot", "momentum"


class Numbers(NamedTuple):
    """A signal of a group: a number of each of its tensors."""

    signal: str
    """`norm/...`: sums of squares; `rms/...`: sums; `DOT`, `MOMENTUM`: parts of a cosine; else the largest counts."""
    group: str
    parameters: list[str]
    """Whose each tensor is."""
    sizes: list[int]
    """The elements of each tensor."""
    numbers: list[float]


@dataclass(kw_only=True)
class Summary:
    """One optimizer step in numbers."""

    values: dict[tuple[str, str], float] = field(default_factory=dict)
    """By signal and group."""
    measured: list[Numbers] = field(default_factory=list)
    """What they were made of."""
    nonfinite: dict[str, list[str]] = field(default_factory=dict)
    """By parameter: the signals in which it is not finite."""

    def by_parameter(self) -> Iterator[tuple[str, str, float]]:
        """`(signal, parameter, value)` of every norm and root mean square."""
        for signal, _, parameters, sizes, numbers in self.measured:
            if shown := _SHOWN.get(signal.partition("/")[0]):
                for name, size, number in zip(parameters, sizes, numbers, strict=True):
                    yield signal, name, shown(number, size)


def summarize(measured: list[Numbers]) -> Summary:
    """The norms over each group and over all, and what follows from them."""
    values: dict[tuple[str, str], float] = {}
    sums: dict[str, dict[str, float]] = {}
    sizes: dict[str, dict[str, int]] = {}
    bad: dict[str, dict[str, list[str]]] = {}
    for signal, group, parameters, sizes_of, numbers in measured:
        if signal.partition("/")[0] not in _SUMMED:
            values[signal, group] = max(numbers)
            continue
        total = sum(numbers)
        sums.setdefault(signal, {})[group] = total
        sizes.setdefault(signal, {})[group] = sum(sizes_of)
        found = bad.setdefault(group, {})
        if not math.isfinite(total):
            for name, number in zip(parameters, numbers, strict=True):
                if not math.isfinite(number):
                    found.setdefault(name, []).append(signal.partition("/")[2])
    for sums_of in sums.values():
        sums_of[ALL] = sum(sums_of.values())
    for sizes_by_group in sizes.values():
        sizes_by_group[ALL] = sum(sizes_by_group.values())
    nonfinite = {name: signals for found in bad.values() for name, signals in found.items()}
    summary = Summary(values=values, measured=measured, nonfinite=nonfinite)
    for signal, of_groups in sums.items():
        if shown := _SHOWN.get(signal.partition("/")[0]):
            values |= {(signal, group): shown(total, sizes[signal][group]) for group, total in of_groups.items()}
    for group in (*bad, ALL):
        values["nonfinite", group] = len(bad[group]) if group in bad else len(summary.nonfinite)
        if "norm/update" in sums:
            update, param = values["norm/update", group], values["norm/param", group]
            values["ratio/update_param", group] = _over(update, param)
        # A group in which some gradients have no momentum yet has no angle.
        if DOT in sums and sizes[MOMENTUM].get(group) == sizes["norm/grad"][group]:
            lengths = math.sqrt(sums["norm/grad"][group]) * math.sqrt(sums[MOMENTUM][group])
            values["cos/grad_momentum", group] = _over(sums[DOT][group], lengths)
    return summary


def _norm(total: float, size: int) -> float:
    return math.sqrt(total)


def _root_mean(total: float, size: int) -> float:
    """Of what is a mean of squares itself."""
    return math.sqrt(max(total, 0.0) / size) if size else 0.0


_SHOWN = {"norm": _norm, "rms": _root_mean}
_SUMMED = (*_SHOWN, DOT, MOMENTUM)


def _over(first: float, second: float) -> float:
    """A quotient that is 0 where nothing is divided by nothing."""
    return first / second if second else 0.0
