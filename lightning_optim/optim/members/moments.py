"""Coefficients that the variants of Adam share: two running averages and their bias correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def moments(group: Mapping[str, Any]) -> dict[str, float]:
    """β2, the weights 1 - β1 and 1 - β2 of the new gradient and of its square, and ε.

    They are computed in Python, as 1 - β2 has a relative error of 1e-5 in float32.
    """
    b1, b2 = group["betas"]
    return {"w1": 1 - b1, "b2": b2, "w2": 1 - b2, "eps": group["eps"]}


def bias_corrections(t: float, group: Mapping[str, Any]) -> dict[str, float]:
    """`size`, which is lr / (1 - β1^t), and `root`, which is √(1 - β2^t): √v is divided by it before ε is added."""
    b1, b2 = group["betas"]
    return {"size": group["lr"] / (1 - b1**t), "root": (1 - b2**t) ** 0.5}


def corrected_lr(t: float, group: Mapping[str, Any]) -> float:
    """lr √(1 - β2^t) / (1 - β1^t): both corrections in the lr, for rules that add ε to the uncorrected √v."""
    b1, b2 = group["betas"]
    size: float = group["lr"] * (1 - b2**t) ** 0.5 / (1 - b1**t)
    return size


def advance_m(g: Any, buffers: Sequence[Any], w1: float, has_m: bool) -> tuple[Any, Any, Any]:
    """Add the gradient to its average m; returns m, the average of squares, and the maximum of these if there is one.

    Args:
        g: the gradient. Without m, where `schedule_free` averages in its place, it is returned as m.
        buffers: m if there is one, the average of squares, its maximum if there is one.
        w1: the weight of the gradient in m.
        has_m: whether there is one.
    """
    m, v, *maxima = buffers if has_m else (g, *buffers)
    if has_m:
        m.lerp_(g, w1)
    return m, v, maxima[0] if maxima else None
