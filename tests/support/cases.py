"""Parametrized cases of which the fast tests run a few, and `.ci/run` all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest


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
