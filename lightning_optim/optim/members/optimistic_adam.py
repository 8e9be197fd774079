"""Optimistic Adam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class OptimisticAdam(Member, name="optimistic_adam"):
    """Adam that takes each step twice and the one before it back (Daskalakis et al., arXiv:1711.00141, algorithm 1).

    So it does not circle around the solution of a game, as of a GAN. Before the first step there was none, so that one
    is doubled, as in the paper; optax takes the first one once. eps stands where Adam has it.

    Args and options are `Adam`'s, less optimized_update and `cautious_update`: the next step takes back what was never
    taken.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `previous`, with amsgrad `max_exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
