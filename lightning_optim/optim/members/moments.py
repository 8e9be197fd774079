"""What Adam's relatives share: the coefficients of two running averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def moments(group: Mapping[str, Any]) -> dict[str, float]:
    """β2, and the weights 1 - β1 and 1 - β2 of the new gradient and of its square; with ε.

    In Python, since 1 - β2 in float32 would be off by 1e-5 of itself.
    """
    b1, b2 = group["betas"]
    return {"w1": 1 - b1, "b2": b2, "w2": 1 - b2, "eps": group["eps"]}
