"""Optimistic Adam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class OptimisticAdam(Member, name="optimistic_adam"):
    """Adam that doubles each step and subtracts the previous one (Daskalakis et al., arXiv:1711.00141, algorithm 1).

    It does not move in circles around the solution of a game such as a GAN. The previous step is initially 0, so the
    first step is doubled, as in the paper; in optax it is not. eps is added as in Adam.

    Args:
        cautious_update: not supported, as the next step subtracts the whole of this one.

    State:
        previous: the previous step of Adam, without lr.

    Examples:
        >>> from torch import nn
        >>> optim.OptimisticAdam(nn.Linear(3, 2).parameters(), lr=1e-4, betas=(0.5, 0.9)).defaults["amsgrad"]
        False
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        return {**moments(group), "bias1": 1 - b1**t, "root": (1 - b2**t) ** 0.5, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, v, previous, v_max=None, *, w1, b2, w2, eps, bias1, root, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        now = (m / bias1).div_((v_hat.sqrt() / root).add_(eps))
        step = now * 2 - previous
        previous.copy_(now)
        return Update(step, size)
