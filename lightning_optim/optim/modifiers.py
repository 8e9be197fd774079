"""What stands around a rule at a key of the param group, tensor by tensor: the same for a tensor and over lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .tensor_list import TensorList
from .update import Update

# Of a row of zeros: else it could never leave zero (arXiv:2102.06171, section 4).
_SMALLEST_NORM = 1e-3
# As in the authors' code: where nearly nothing agrees, the rest of the step is not made arbitrarily large.
_SMALLEST_AGREEMENT = 1e-3


def each(function: Callable[..., Tensor], *arguments: Any) -> Any:
    """A function of tensors, of one after the other where they are lists."""
    if not isinstance(arguments[0], TensorList):
        return function(*arguments)
    lists = (argument.tensors for argument in arguments)
    return TensorList([function(*tensors) for tensors in zip(*lists, strict=True)])


def centralized(g: Tensor) -> Tensor:
    """A gradient less the mean of each of its rows, the slices along its first dimension (arXiv:2004.01461, eq. 1)."""
    return g - g.mean(dim=_across(g), keepdim=True) if g.ndim > 1 else g


def clipped(g: Tensor, p: Tensor, part: float) -> Tensor:
    """A gradient of which no row's norm is above `part` of its parameter's row (arXiv:2102.06171, eq. 3).

    A tensor of one dimension counts as one row.
    """
    most = _norm(p).clamp_min(_SMALLEST_NORM).mul_(part)
    # NaN, from a gradient that is not finite, goes through.
    return g * (most / _norm(g)).nan_to_num_(nan=1.0).clamp_max_(1.0).to(g.dtype)


def cautious(updates: tuple[Update, ...], g: Any) -> tuple[Update, ...]:
    """The step where it does not go against the gradient, enlarged by as much as is left out (arXiv:2411.16085).

    With one number for each tensor, as in the authors' code: φ = [u g > 0], u ← u φ / max(mean φ, 0.001).
    """
    steps: list[Any] = [update.whole() for update in updates] if len(updates) > 1 else [updates[0].direction]
    step = steps[0]
    for other in steps[1:]:
        step = step + other
    mask = each(_same_sign_enlarged, step, g)
    return tuple(replace(update, direction=update.direction * mask) for update in updates)


def look_ahead(p: Any, slow: Any, alpha: float) -> None:
    """Let the slow weights follow, and go on from them (arXiv:1907.08610, algorithm 1)."""
    slow.lerp_(p, alpha)
    p.copy_(slow)


def _same_sign_enlarged(step: Tensor, g: Tensor) -> Tensor:
    """1 where step · g > 0, else 0, divided by the share of ones."""
    # The product of signs, as the product itself may underflow.
    mask = (step.sign() * g.sign() > 0).to(step.dtype)
    return mask / mask.mean().clamp_min(_SMALLEST_AGREEMENT)


def _across(tensor: Tensor) -> list[int]:
    return list(range(1, tensor.ndim))


def _norm(tensor: Tensor) -> Tensor:
    dims = {} if tensor.ndim < 2 else {"dim": _across(tensor), "keepdim": True}
    # In float16 the sum of squares overflows where no element does.
    wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
    norm: Tensor = torch.linalg.vector_norm(tensor, **dims, dtype=wide)
    return norm
