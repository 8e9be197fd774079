"""AdEMAMix."""

from __future__ import annotations

import math
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class AdEMAMix(Member, name="ademamix"):
    """AdamW with a second, much slower momentum (Pagliardini et al., arXiv:2409.03137, algorithm 1).

    The slow average is not bias-corrected. `alpha_warmup` and `beta3_warmup` phase in its weight and its length,
    ideally over the whole run; without them early steps may diverge. β3 warms up as in the paper; the authors' code
    adds 1e-8 to each β there. alpha is 2 as in the authors' code; in pytorch_optimizer and optax it is 5.

    Args:
        alpha_warmup: steps over which alpha grows linearly from 0; None: no warm-up.
        beta3_warmup: steps over which the half-life of the slow average grows linearly from that of the fast one; None:
            no warm-up.

    State:
        exp_avg_slow: the slow running average of the gradient.

    Examples:
        >>> from torch import nn
        >>> optim.AdEMAMix(nn.Linear(3, 2).parameters(), alpha_warmup=1000, beta3_warmup=1000).defaults["betas"]
        (0.9, 0.999, 0.9999)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2, b3 = group["betas"]
        alpha = group["alpha"] * min(t / (group["alpha_warmup"] or 1), 1)
        w_slow = 1 - interpolate_beta(b1, b3, min(t / (group["beta3_warmup"] or 1), 1))
        bias = {"bias1": 1 - b1**t, "root": (1 - b2**t) ** 0.5}
        return {**moments({**group, "betas": (b1, b2)}), **bias, "alpha": alpha, "w_slow": w_slow, "lr": group["lr"]}

    @staticmethod
    def update(p, g, m, slow, v, *, w1, b2, w2, eps, bias1, root, alpha, w_slow, lr) -> Update:
        m.lerp_(g, w1)
        slow.lerp_(g, w_slow)
        v.mul_(b2).addcmul_(g, g, value=w2)
        return Update((m / bias1).add_(slow, alpha=alpha), lr, over=(v.sqrt() / root).add_(eps))


def interpolate_beta(start: float, end: float, fraction: float) -> float:
    """The decay rate whose half-life is this fraction of the way from that of `start` to that of `end`."""
    if fraction == 1:
        return end
    half_life = (1 - fraction) * _half_life(start) + fraction * _half_life(end)
    return math.exp(-1 / half_life) if half_life > 0 else 0.0


def _half_life(beta: float) -> float:
    return -1 / math.log(beta) if beta > 0 else 0.0
