"""The tensors and numbers in one parameter's optimizer state, however deeply they are nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def state_leaves(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor | float]]:
    """`(key, tensor or number)` for each leaf; the items of a list, such as LBFGS has, are `key.0`, `key.1`, ..."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{subkey}", leaf) for subkey, leaf in state_leaves(value))
        elif isinstance(value, (list, tuple)):
            items = {str(index): item for index, item in enumerate(value)}
            yield from ((f"{key}.{subkey}", leaf) for subkey, leaf in state_leaves(items))
        elif isinstance(value, (Tensor, int, float)):
            yield str(key), value


def is_float_tensor(value: Any) -> bool:
    """Whether it is a floating-point or complex tensor, and so has a norm."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
