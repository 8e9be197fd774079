"""LaProp."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class LaProp(Member, name="laprop"):
    """Momentum of Adam's normalized gradients (Ziyin et al., arXiv:2002.04839, algorithm 1).

    Each gradient is divided by the root of its second moment before it is averaged, so that β1 and β2 can be chosen
    independently. lr multiplies the average, as in the paper. In the authors' code and pytorch_optimizer lr is inside
    the average and weights each gradient by the lr of its step: the same at a constant lr, another rule under a
    schedule. The parameter decays before the step, and decoupled; the authors' code multiplies it by 1 - λ after the
    step (`absolute`).

    State:
        exp_avg: running average of normalized gradients.

    Examples:
        >>> from torch import nn
        >>> optim.LaProp(nn.Linear(3, 2).parameters()).defaults["lr"]
        0.0004
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **bias_corrections(t, group)}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, root, size) -> Update:
        v.mul_(b2).addcmul_(g, g, value=w2)
        m.lerp_(g / (v.sqrt() / root).add_(eps), w1)
        return Update(m, size)
