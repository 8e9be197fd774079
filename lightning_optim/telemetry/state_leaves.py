"""The tensors and numbers in one parameter's optimizer state, however deeply they are nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def leaves(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor | float]]:
    """`(key, tensor or number)` of each in a state; of lists in it, such as LBFGS's, `key.0`, `key.1`, ..."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{below}", leaf) for below, leaf in leaves(value))
        elif isinstance(value, (list, tuple)):
            yield from (
                (f"{key}.{below}", leaf)
                for below, leaf in leaves({str(place): item for place, item in enumerate(value)})
            )
        elif isinstance(value, (Tensor, int, float)):
            yield str(key), value


def is_float(value: Any) -> bool:
    """Whether it is a tensor that has a norm."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
