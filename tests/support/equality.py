"""Bitwise comparison of nested values, as in state dicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def equal(first: Any, second: Any) -> bool:
    """Whether two nested dicts, lists and tuples are equal; tensors are compared bit by bit, dtype included."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(equal(first[key], second[key]) for key in first)
        )
    if isinstance(first, (list, tuple)):
        return isinstance(second, (list, tuple)) and len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
