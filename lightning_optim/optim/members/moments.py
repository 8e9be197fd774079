"""Coefficients that the variants of Adam share: two running averages and their bias correction."""

from __future__ import annotations

from collections.abc import Mapping
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
