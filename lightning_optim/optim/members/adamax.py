"""Adamax."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Adamax(Member, name="adamax"):
    """Adam with the infinity norm (Kingma & Ba, arXiv:1412.6980, algorithm 2), bitwise `torch.optim.Adamax`.

    eps is added to |g|, inside the maximum, as in torch; the paper has no eps.

    State:
        exp_inf: exponentially weighted infinity norm.

    Examples:
        >>> from torch import nn
        >>> optim.Adamax(nn.Linear(3, 2).parameters()).defaults["lr"]
        0.002
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        return {"w1": 1 - b1, "b2": b2, "eps": group["eps"], "size": group["lr"] / (1 - b1**t)}

    @staticmethod
    def update(p, g, m, u, *, w1, b2, eps, size) -> Update:
        m.lerp_(g, w1)
        u.mul_(b2).clamp_min_(g.abs().add_(eps))
        return Update(m, size, over=u)
