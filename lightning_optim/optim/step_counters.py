"""Step counters of many parameters, read and increased in one call of C where some kernel is loaded."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .fused.compiler import find_loaded

_dtype, _is_cpu = attrgetter("dtype"), attrgetter("is_cpu")


def find_addresses(counters: Sequence[Any]) -> array[int] | None:
    """Where the counters are, for the functions below; None where they cannot take them.

    Args:
        counters: `state["step"]` of each parameter.
    """
    if not find_loaded("count_steps") or set(map(type, counters)) != {Tensor}:
        return None
    if set(map(_dtype, counters)) != {torch.float32} or not all(map(_is_cpu, counters)):
        return None
    addresses = array("q", map(Tensor.data_ptr, counters))
    return addresses if all(addresses) else None


def are_equal(addresses: array[int]) -> bool:
    """Whether counters are all the same."""
    return _count(addresses, 0.0)


def add_one(counters: Sequence[Tensor], addresses: array[int]) -> None:
    """Increase counters.

    Args:
        counters: each of them once.
        addresses: theirs.
    """
    _count(addresses, 1.0)
    increment_version(counters)


def _count(addresses: array[int], amount: float) -> bool:
    start = c_void_p(addresses.buffer_info()[0])
    return bool(find_loaded("count_steps")(start, c_int64(len(addresses)), c_float(amount)))
