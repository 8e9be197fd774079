"""AdamP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class AdamP(Member, name="adamp"):
    """Adam that does not grow weights before a normalization (Heo et al., arXiv:2006.08217, algorithm 3).

    Weights seem to be scale-invariant where the gradient is nearly orthogonal to them: in each row (output channel), or
    else in the whole tensor. Then the part of the step along the weights is removed, and weight decay is multiplied by
    wd_ratio. As in the authors' code this applies to tensors of two or more dimensions. eps is added as in Adam;
    pytorch_optimizer adds it to the uncorrected root, and its `l2` decay has no effect there. Only parameters of the
    same shape run together (foreach).

    Args:
        delta: weights count as scale-invariant where |cos(g, p)| < δ / √n in all rows, or in the tensor, of n elements.

    State:
        rows: number of rows of the tensor as a matrix; 0 for a vector.
        columns: number of elements per row; 0 for a vector.

    Examples:
        >>> from torch import nn
        >>> optim.AdamP(nn.Linear(3, 2).parameters(), lr=1e-3, weight_decay=0.01).defaults["weight_decay_mode"]
        'decoupled'
    """

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"rows": 0.0, "columns": 0.0}

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        super().init_state(state, group, param)
        state["rows"], state["columns"] = matrix_shape(param)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        corrected = {**moments(group), **bias_corrections(t, group)}
        return {**corrected, "nesterov": group["nesterov"], **matrix_coefficients(group)}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, size, root, nesterov, matrix, **limits) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        step = (m.lerp(g, w1) if nesterov else m) / (v.sqrt() / root).add_(eps)
        return project_step(p, g, step, size, eps=eps, **limits) if matrix else Update(step, size)


def matrix_shape(param: Tensor) -> tuple[float, float]:
    """The number of rows of a tensor and of elements per row; 0 and 0 where it has fewer than two dimensions."""
    shape = torch.view_as_real(param).shape if param.is_complex() else param.shape
    return (float(shape[0]), float(shape[1:].numel())) if len(shape) > 1 and shape.numel() else (0.0, 0.0)


def matrix_coefficients(group: ParamGroup) -> dict[str, Any]:
    """The shape as a matrix, and the cosines below which rows, or the tensor, count as scale-invariant."""
    n, k = group["rows"], group["columns"]
    max_row, max_tensor = (group["delta"] / max(numel, 1.0) ** 0.5 for numel in (k, n * k))
    limits = {"max_row": max_row, "max_tensor": max_tensor, "wd_ratio": group["wd_ratio"]}
    return {"rows": n, "columns": k, "matrix": k > 0, **limits}


def project_step(
    p: Any,
    g: Any,
    step: Any,
    size: float,
    *,
    eps: float,
    max_row: float,
    max_tensor: float,
    wd_ratio: float,
) -> Update:
    """The step, without its part along `p` where `p` seems to be scale-invariant."""
    weights, grads, steps = (tensor.flatten(1) for tensor in (p, g, step))
    products = (weights * grads, weights * weights, grads * grads, weights * steps)
    dots, weight_squares, grad_squares, along = (product.sum(1, keepdim=True) for product in products)
    by_row = cosine(dots, weight_squares, grad_squares, eps).amax().lt(max_row)
    by_tensor = cosine(dots.sum(), weight_squares.sum(), grad_squares.sum(), eps).lt(max_tensor)
    # Rows come first. If only the tensor as a whole is invariant, all rows are divided by its norm.
    norm = weight_squares.where(by_row, weight_squares.sum()).sqrt().add_(eps)
    invariant = by_row.logical_or(by_tensor)
    radial = along.where(by_row, along.sum()).where(invariant, 0.0) / norm / norm
    decay = p.new_full((), wd_ratio).where(invariant, 1.0)
    return Update(steps.sub(weights * radial).view_as(p), size, decay=decay)


def cosine(dot: Any, square: Any, other_square: Any, eps: float) -> Any:
    """|cos| of the angle between two vectors, from their dot product and the squares of their norms."""
    return dot.abs() / (square.sqrt().clamp_min_(eps) * other_square.sqrt().clamp_min_(eps))
