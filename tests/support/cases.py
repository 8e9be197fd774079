"""Parametrized cases of which the fast tests run a few, and `.ci/run` all, or those that can fail separately."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pytest

EVERY_COMBINATION = bool(os.environ.get("EVERY_COMBINATION"))
"""Whether the slow tests run all combinations of a table, not only some in which each value occurs."""


def every(values: Iterable[Any], *, fast: Collection[Any], id: Callable[[Any], str] = str) -> list[Any]:
    """A pytest parameter for each value; all but the fast ones are marked slow.

    Args:
        values: all cases; a tuple is the arguments of one case.
        fast: the ids of those that the fast tests run. Each must be among the values, and the list not empty.
        id: names a value.
    """
    values = list(values)
    ids = [id(value) for value in values]
    assert fast and not set(fast) - set(ids), f"no such cases: {set(fast) - set(ids) or 'none is fast'}"
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name,
            marks=() if name in fast else pytest.mark.slow,
        )
        for name, value in zip(ids, values, strict=True)
    ]


def each_value(
    combinations: Iterable[Any], *, fast: Collection[Any], id: Callable[[Any], str] = str, separator: str = ", "
) -> list[Any]:
    """As `every`, of combinations: the fast ones, and further ones until each value of each axis is in one of them.

    With `EVERY_COMBINATION`, all of them.

    Args:
        combinations: tuples, or texts of which a separator divides the values.
        fast: the ids of those that the fast tests run.
        id: names a combination.
        separator: of texts.
    """
    combinations = list(combinations)
    if EVERY_COMBINATION:
        return every(combinations, fast=fast, id=id)

    def values_of(combination: Any) -> set[tuple[int, str]]:
        return set(enumerate(map(str, combination if isinstance(combination, tuple) else combination.split(separator))))

    chosen = [one for one in combinations if id(one) in fast]
    seen: set[tuple[int, str]] = set().union(*map(values_of, chosen))
    while new := max((len(values_of(one) - seen) for one in combinations), default=0):
        chosen.append(next(one for one in combinations if len(values_of(one) - seen) == new))
        seen |= values_of(chosen[-1])
    return every([one for one in combinations if one in chosen], fast=fast, id=id)


def every_row(table: Mapping[str, tuple[Any, ...]], *, fast: int) -> list[Any]:
    """As `every`, of a table from ids to arguments: this many rows, evenly spread, are fast."""
    chosen = list(table)[:: -(-len(table) // fast)]
    return [
        pytest.param(*values, id=name, marks=() if name in chosen else pytest.mark.slow)
        for name, values in table.items()
    ]
