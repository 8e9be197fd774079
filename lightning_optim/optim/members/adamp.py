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
    """Adam that does not grow weights that a normalization follows (Heo et al., arXiv:2006.08217, algorithm 3).

    From the step it takes the part along the weights, where the gradient is so nearly at right angles to them that they
    seem to be scale-invariant: in each row (output channel), or else in the whole tensor. Such a tensor decays by
    wd_ratio of what it would. All this as in the authors' code, in tensors of two dimensions or more; eps stands where
    Adam has it, in pytorch_optimizer beside the uncorrected root (and there the decay `l2` does nothing). Parameters of
    one shape run together.

    Args and options are `Adam`'s, less amsgrad and optimized_update; the decay is decoupled by default. And:

    Args:
        delta: the threshold: |cos(g, p)| < δ / √n in all rows, or in the tensor, of n elements.
        wd_ratio: the part of the decay that scale-invariant tensors have, in [0, 1]; not of `l2` and `l1`.
        nesterov: with Nesterov's momentum.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`; and the numbers `rows` and `columns`, its
    shape as a matrix.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.AdamP(nn.Linear(3, 2).parameters(), lr=1e-3, weight_decay=0.01).defaults["weight_decay_mode"]
        'decoupled'
    """

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"rows": 0.0, "columns": 0.0}

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        super().init_state(state, group, param)
        state["rows"], state["columns"] = as_matrix(param)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        corrected = {**moments(group), **bias_corrections(t, group)}
        return {**corrected, "nesterov": group["nesterov"], **of_matrix(group)}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, size, root, nesterov, matrix, **limits) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        step = (m.lerp(g, w1) if nesterov else m) / (v.sqrt() / root).add_(eps)
        return projected(p, g, step, size, eps=eps, **limits) if matrix else Update(step, size)


def as_matrix(param: Tensor) -> tuple[float, float]:
    """Rows, and elements of each, of a tensor of two dimensions or more; else 0."""
    shape = torch.view_as_real(param).shape if param.is_complex() else param.shape
    return (float(shape[0]), float(shape[1:].numel())) if len(shape) > 1 and shape.numel() else (0.0, 0.0)


def of_matrix(group: ParamGroup) -> dict[str, Any]:
    """Whether it is one, its shape, and below which cosine it seems to be scale-invariant."""
    n, k = group["rows"], group["columns"]
    row, whole = (group["delta"] / max(numel, 1.0) ** 0.5 for numel in (k, n * k))
    limits = {"shape": (int(n), int(k)), "row": row, "whole": whole, "kept": group["wd_ratio"]}
    return {"rows": n, "columns": k, "matrix": k > 0, **limits}


def projected(
    p: Any, g: Any, step: Any, size: float, *, eps: float, shape: tuple[int, int], row: float, whole: float, kept: float
) -> Update:
    """The step, without its part along `p` where that seems to be scale-invariant."""
    weights, slopes, taken = (each.reshape(*shape) for each in (p, g, step))
    products = (weights * slopes, weights * weights, slopes * slopes)
    dots, squares, of_slopes = (product.sum(1, keepdim=True) for product in products)
    in_rows = cosine(dots, squares, of_slopes, eps).amax().lt(row)
    in_whole = cosine(dots.sum(), squares.sum(), of_slopes.sum(), eps).lt(whole)
    # Rows first; where it is the whole, each row is scaled by the same norm, and loses the same part.
    unit = weights / squares.where(in_rows, squares.sum()).sqrt().add_(eps)
    along = (unit * taken).sum(1, keepdim=True)
    invariant = in_rows.logical_or(in_whole)
    radial = along.where(in_rows, along.sum()).where(invariant, 0.0)
    decay = p.new_full((), kept).where(invariant, 1.0)
    return Update(taken.sub(unit.mul_(radial)).view_as(p), size, decay=decay)


def cosine(dot: Any, square: Any, other: Any, eps: float) -> Any:
    """|cos| of two vectors, by their products."""
    return dot.abs() / (square.sqrt().clamp_min_(eps) * other.sqrt().clamp_min_(eps))
