"""The values of each group's signals, from one number for each of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..groups.group import ALL

# Sums that have no curve of their own: the cosine is made from them.
DOT, MOMENTUM = "dot", "momentum"


class SignalNumbers(NamedTuple):
    """One number for each tensor of a group's signal."""

    signal: str
    """`norm/...`: a sum of squares; `rms/...`: a sum; `DOT`, `MOMENTUM`: parts of a cosine; else a value, of which a
    group's largest counts."""
    group: str
    parameters: list[str]
    """The name of the parameter that each tensor belongs to."""
    sizes: list[int]
    """The number of elements of each tensor."""
    numbers: list[float]


@dataclass(kw_only=True)
class Summary:
    """One optimizer step in numbers."""

    values: dict[tuple[str, str], float] = field(default_factory=dict)
    """By signal and group."""
    measured: list[SignalNumbers] = field(default_factory=list)
    """What the values were computed from."""
    nonfinite: dict[str, list[str]] = field(default_factory=dict)
    """By parameter: the signals in which it has NaN or infinite elements."""

    def by_parameter(self) -> Iterator[tuple[str, str, float]]:
        """`(signal, parameter, value)` for every norm and root mean square."""
        for signal, _, parameters, sizes, numbers in self.measured:
            if to_value := _VALUE_OF_SUM.get(_kind(signal)):
                for name, size, number in zip(parameters, sizes, numbers, strict=True):
                    yield signal, name, to_value(number, size)


def summarize(measured: list[SignalNumbers]) -> Summary:
    """The values of each group and of all groups together, and what is derived from them."""
    values: dict[tuple[str, str], float] = {}
    sums: dict[str, dict[str, float]] = {}
    sizes: dict[str, dict[str, int]] = {}
    nonfinite_by_group: dict[str, dict[str, list[str]]] = {}
    for signal, group, parameters, tensor_sizes, numbers in measured:
        if _kind(signal) not in _SUMMED_KINDS:
            values[signal, group] = max(numbers)
            continue
        total = sum(numbers)
        sums.setdefault(signal, {})[group] = total
        sizes.setdefault(signal, {})[group] = sum(tensor_sizes)
        group_nonfinite = nonfinite_by_group.setdefault(group, {})
        if not math.isfinite(total):
            for name, number in zip(parameters, numbers, strict=True):
                if not math.isfinite(number):
                    group_nonfinite.setdefault(name, []).append(signal.partition("/")[2])
    for group_sums in sums.values():
        group_sums[ALL] = sum(group_sums.values())
    for group_sizes in sizes.values():
        group_sizes[ALL] = sum(group_sizes.values())
    nonfinite = {name: signals for by_name in nonfinite_by_group.values() for name, signals in by_name.items()}
    for signal, group_sums in sums.items():
        if to_value := _VALUE_OF_SUM.get(_kind(signal)):
            values |= {(signal, group): to_value(total, sizes[signal][group]) for group, total in group_sums.items()}
    for group in (*nonfinite_by_group, ALL):
        values["nonfinite", group] = len(nonfinite_by_group.get(group, nonfinite))
        if "norm/update" in sums:
            update, param = values["norm/update", group], values["norm/param", group]
            values["ratio/update_param", group] = _ratio(update, param)
        # A group in which some parameters have a gradient but no momentum yet has no cosine.
        if DOT in sums and sizes[MOMENTUM].get(group) == sizes["norm/grad"][group]:
            norms = math.sqrt(sums["norm/grad"][group]) * math.sqrt(sums[MOMENTUM][group])
            values["cos/grad_momentum", group] = _ratio(sums[DOT][group], norms)
    return Summary(values=values, measured=measured, nonfinite=nonfinite)


def _kind(signal: str) -> str:
    return signal.partition("/")[0]


def _norm(total: float, size: int) -> float:
    return math.sqrt(total)


def _rms(total: float, size: int) -> float:
    """The root of the mean of values that are averages of squares themselves."""
    return math.sqrt(max(total, 0.0) / size) if size else 0.0


_VALUE_OF_SUM = {"norm": _norm, "rms": _rms}
"""By kind of signal: the value of a group or parameter from the sum over its tensors and their number of elements."""
_SUMMED_KINDS = (*_VALUE_OF_SUM, DOT, MOMENTUM)


def _ratio(numerator: float, denominator: float) -> float:
    """The quotient; 0 where the denominator is 0."""
    return numerator / denominator if denominator else 0.0
