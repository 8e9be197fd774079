"""The tensors and numbers in a parameter's saved state, and their measures in float64, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..telemetry.state_leaves import is_float

STEP = "step"
# Elements that are in float64 at a time: a table of embeddings may fill the memory once, but not three times.
_PIECE = 1 << 22


def num_bytes(value: Tensor | float) -> int:
    """What a tensor takes; a number counts as nothing."""
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def norm(tensor: Tensor) -> float:
    """The L2 norm."""
    return math.hypot(*(float(torch.linalg.vector_norm(piece)) for piece in _pieces(tensor)))


def num_nonfinite(value: Tensor | float) -> int:
    """How many elements are NaN or infinite."""
    if not isinstance(value, Tensor):
        return int(not math.isfinite(value))
    if not is_float(value):
        return 0
    return sum(int((~piece.isfinite()).sum()) for piece in _pieces(value))


def same(first: Tensor | float, second: Tensor | float) -> bool:
    """Whether two are of one type and shape and have the same bits."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        alike = type(first) is type(second)
        return alike and bool(first == second or (math.isnan(first) and math.isnan(second)))
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (first, second)))


def difference(first: Tensor | float, second: Tensor | float) -> tuple[float, float]:
    """`(largest absolute difference, norm of the difference)` of two of one shape; NaN where one alone is NaN."""
    largest, norms = 0.0, []
    sides = [
        value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64) for value in (first, second)
    ]
    for ours, theirs in zip(*map(_pieces, sides), strict=True):
        # Infinite or NaN alike is no difference.
        alike = (ours == theirs) | (ours.isnan() & theirs.isnan())
        apart = torch.where(alike, 0, ours - theirs).abs()
        if apart.numel():
            largest = float(torch.maximum(apart.max(), apart.new_tensor(largest)))
        norms.append(float(torch.linalg.vector_norm(apart)))
    return largest, math.hypot(*norms)


def describe(value: Tensor | float | None) -> str:
    """What two must share to be compared element by element: `float32 [4, 8]`."""
    if value is None:
        return "nothing"
    if not isinstance(value, Tensor):
        return "a number"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor as flat ones in float64, or complex128."""
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    for piece in torch.split(tensor.detach().reshape(-1), _PIECE):
        yield piece.to(dtype)
