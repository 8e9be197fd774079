"""What Adam's relatives share: the coefficients of two running averages, and of the correction of their bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def moments(group: Mapping[str, Any]) -> dict[str, float]:
    """β2, and the weights 1 - β1 and 1 - β2 of the new gradient and of its square; with ε.

    In Python, since 1 - β2 in float32 would be off by 1e-5 of itself.
    """
    b1, b2 = group["betas"]
    return {"w1": 1 - b1, "b2": b2, "w2": 1 - b2, "eps": group["eps"]}


def bias_corrections(t: float, group: Mapping[str, Any]) -> dict[str, float]:
    """`size`, lr / (1 - β1^t), and `root`, √(1 - β2^t), by which √v is divided before ε is added."""
    b1, b2 = group["betas"]
    return {"size": group["lr"] / (1 - b1**t), "root": (1 - b2**t) ** 0.5}


def corrected_lr(t: float, group: Mapping[str, Any]) -> float:
    """lr √(1 - β2^t) / (1 - β1^t): both corrections in the lr, where ε is added to √v as it is."""
    b1, b2 = group["betas"]
    size: float = group["lr"] * (1 - b2**t) ** 0.5 / (1 - b1**t)
    return size
