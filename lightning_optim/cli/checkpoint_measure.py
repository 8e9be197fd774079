"""Measures of the tensors and numbers in a saved state: sizes, norms and differences, in float64 and in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..telemetry.state_leaves import is_float_tensor

STEP = "step"
# Elements converted to float64 at a time: a large embedding table may fill the memory once, but not three times.
_CHUNK_NUMEL = 1 << 22


def num_bytes(value: Tensor | float) -> int:
    """The memory of a tensor; 0 for a number."""
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def norm(tensor: Tensor) -> float:
    """The L2 norm."""
    return math.hypot(*(float(torch.linalg.vector_norm(chunk)) for chunk in _chunks(tensor)))


def num_nonfinite(value: Tensor | float) -> int:
    """The number of NaN and infinite elements."""
    if not isinstance(value, Tensor):
        return int(not math.isfinite(value))
    if not is_float_tensor(value):
        return 0
    return sum(int((~chunk.isfinite()).sum()) for chunk in _chunks(value))


def is_bitwise_equal(first: Tensor | float, second: Tensor | float) -> bool:
    """Whether two values have the same type, shape and bits."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        same_type = type(first) is type(second)
        return same_type and bool(first == second or (math.isnan(first) and math.isnan(second)))
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (first, second)))


def difference(first: Tensor | float, second: Tensor | float) -> tuple[float, float]:
    """`(largest absolute difference, norm of the difference)` of two values of one shape; NaN if only one is NaN."""
    largest, norms = 0.0, []
    tensors = [
        value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64) for value in (first, second)
    ]
    for old, new in zip(*map(_chunks, tensors), strict=True):
        # The same infinity, or NaN in both, is no difference.
        is_equal = (old == new) | (old.isnan() & new.isnan())
        distance = torch.where(is_equal, 0, old - new).abs()
        if distance.numel():
            largest = float(torch.maximum(distance.max(), distance.new_tensor(largest)))
        norms.append(float(torch.linalg.vector_norm(distance)))
    return largest, math.hypot(*norms)


def describe_value(value: Tensor | float | None) -> str:
    """The dtype and shape, which two values must share to be compared by element: `float32 [4, 8]`."""
    if value is None:
        return "missing"
    if not isinstance(value, Tensor):
        return "a number"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor as flat chunks in float64, or in complex128."""
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    for chunk in torch.split(tensor.detach().reshape(-1), _CHUNK_NUMEL):
        yield chunk.to(dtype)
