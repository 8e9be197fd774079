"""ADOPT."""

from __future__ import annotations

import math
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class ADOPT(Member, name="adopt"):
    """Adam that converges with any β2: v does not include the current gradient (Taniguchi et al., arXiv:2411.02853).

    The gradient is divided by the root of the *previous* second moment, and then averaged. The first gradient only sets
    that moment: no step is taken, but the parameter itself still decays, as in pytorch_optimizer; the authors' code
    skips the decay at that step.

    `clip` bounds each normalized gradient by (t - 1)^(1/4), as the authors' code does since its second version, for
    first gradients near 0. The first step is within ±1, as there and in optax; in pytorch_optimizer it is within
    ±2^(1/4).

    Args:
        betas: decay rates of the running averages of the normalized gradient and of the squared gradient.
        eps: minimum of the denominator; it is not added.

    State:
        exp_avg: running average of normalized gradients.

    Examples:
        >>> from torch import nn
        >>> optim.ADOPT(nn.Linear(3, 2).parameters(), weight_decay_mode="decoupled").defaults["clip"]
        True
    """

    # Unclipped, the quotient of a gradient of 1 must fit into float16 too, which ends at 65504.
    def denominator_floor(self, group: ParamGroup) -> float | None:
        return float(group["eps"] if group["clip"] else group["eps"] / 512)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        bound = (t - 1) ** 0.25 if group["clip"] else math.inf
        return {**moments(group), "low": -bound, "high": bound, "size": group["lr"], "first": t == 1}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, low, high, size, first) -> Update:
        if first:
            v.addcmul_(g, g, value=1)
            return Update(m, 0.0)
        m.lerp_((g / v.sqrt().clamp_min_(eps)).clamp_min_(low).clamp_max_(high), w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        return Update(m, size)
