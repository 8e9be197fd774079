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


def split_moments(g: Any, buffers: Sequence[Any], has_m: bool) -> tuple[Any, Any, Any]:
    """The average of gradients, that of their squares, and the maximum of the latter, None if there is none.

    Args:
        g: the gradient: without an average of gradients, it takes its place.
        buffers: those that there are, in this order.
        has_m: whether there is an average of gradients.
    """
    m, v, *others = buffers if has_m else (g, *buffers)
    return m, v, others[0] if others else None
