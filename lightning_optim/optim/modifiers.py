"""Modifiers of the gradient, the update and the weights; each works on a tensor and, mapped, on a list of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .half_precision import HALF_DTYPES
from .tensor_list import TensorList
from .update import Update, sum_of_steps

# A lower bound on a row's norm: a row of zeros could otherwise never leave zero (arXiv:2102.06171, section 4).
_MIN_ROW_NORM = 1e-3
# As in the authors' code: where almost no element agrees, the others are not enlarged arbitrarily.
_MIN_AGREEMENT = 1e-3


def map_tensors(function: Callable[..., Tensor], *arguments: Any) -> Any:
    """Call a function with tensors or, where the arguments are lists, once for each position in them."""
    if not isinstance(arguments[0], TensorList):
        return function(*arguments)
    lists = (argument.tensors for argument in arguments)
    return TensorList([function(*tensors) for tensors in zip(*lists, strict=True)])


def centralize(g: Tensor) -> Tensor:
    """The gradient minus the mean of each row, a slice along the first dimension (arXiv:2004.01461, eq. 1)."""
    return g - g.mean(dim=_row_dims(g), keepdim=True) if g.ndim > 1 else g


def clip_by_param_norm(g: Tensor, p: Tensor, ratio: float) -> Tensor:
    """The gradient with each row's norm at most `ratio` times that of the parameter's row (arXiv:2102.06171, eq. 3).

    A tensor of one dimension counts as one row.
    """
    max_norm = _row_norm(p).clamp_min(_MIN_ROW_NORM).mul_(ratio)
    # A NaN from a non-finite gradient stays in the gradient.
    return g * (max_norm / _row_norm(g)).nan_to_num_(nan=1.0).clamp_max_(1.0).to(g.dtype)


def mask_disagreeing(updates: tuple[Update, ...], g: Any) -> tuple[Update, ...]:
    """The updates without the elements that oppose the gradient; the others are enlarged in turn (arXiv:2411.16085).

    The scale is one number per tensor, as in the authors' code: φ = [u g > 0], u ← u φ / max(mean φ, 0.001).
    """
    step = sum_of_steps(updates) if len(updates) > 1 else updates[0].direction
    mask = map_tensors(_agreement_mask, step, g)
    return tuple(replace(update, direction=update.direction * mask) for update in updates)


def sync_lookahead(p: Any, slow: Any, alpha: float) -> None:
    """Move the slow weights towards the parameter, then set it to them (arXiv:1907.08610, algorithm 1)."""
    slow.lerp_(p, alpha)
    p.copy_(slow)


def _agreement_mask(step: Tensor, g: Tensor) -> Tensor:
    """1 where step · g > 0, else 0, divided by the share of ones."""
    # The product of signs, because the product itself may underflow.
    mask = (step.sign() * g.sign() > 0).to(step.dtype)
    return mask / mask.mean().clamp_min(_MIN_AGREEMENT)


def _row_dims(tensor: Tensor) -> list[int]:
    return list(range(1, tensor.ndim))


def _row_norm(tensor: Tensor) -> Tensor:
    dims = {} if tensor.ndim < 2 else {"dim": _row_dims(tensor), "keepdim": True}
    # In float16 the sum of squares can overflow although no element does.
    wide = torch.float32 if tensor.dtype in HALF_DTYPES else None
    norm: Tensor = tensor.norm(2.0, **dims, dtype=wide)
    return norm
