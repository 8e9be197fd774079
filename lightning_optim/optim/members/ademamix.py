"""AdEMAMix."""

from __future__ import annotations

import math
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class AdEMAMix(Member, name="ademamix"):
    """AdamW with a second, far longer momentum beside the first (Pagliardini et al., arXiv:2409.03137, algorithm 1).

    The slow average is not bias-corrected. `alpha_warmup` and `beta3_warmup` bring in its weight and its length, best
    over the whole run; without them early steps may diverge. β3 warms up as in the paper; the authors' code adds 1e-8
    to each β there. Its `alpha` is 2, as ours; that of pytorch_optimizer and optax is 5.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: decay rates of the running averages of the gradient, of its square, and of the slow one, in [0, 1).
        alpha: weight of the slow average.
        alpha_warmup: steps over which its weight grows from 0; None: it is there from the start.
        beta3_warmup: steps over which its half-life grows linearly from that of the fast one; None: no warm-up.
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_slow`, `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.AdEMAMix(nn.Linear(3, 2).parameters(), alpha_warmup=1000, beta3_warmup=1000).defaults["betas"]
        (0.9, 0.999, 0.9999)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2, b3 = group["betas"]
        alpha = group["alpha"] * min(t / (group["alpha_warmup"] or 1), 1)
        w_slow = 1 - between(b1, b3, min(t / (group["beta3_warmup"] or 1), 1))
        bias = {"bias1": 1 - b1**t, "root": (1 - b2**t) ** 0.5}
        return {**moments({**group, "betas": (b1, b2)}), **bias, "alpha": alpha, "w_slow": w_slow, "lr": group["lr"]}

    @staticmethod
    def update(p, g, m, slow, v, *, w1, b2, w2, eps, bias1, root, alpha, w_slow, lr) -> Update:
        m.lerp_(g, w1)
        slow.lerp_(g, w_slow)
        v.mul_(b2).addcmul_(g, g, value=w2)
        return Update((m / bias1).add_(slow, alpha=alpha), lr, over=(v.sqrt() / root).add_(eps))


def between(start: float, end: float, part: float) -> float:
    """The decay rate whose half-life is so far on the way from that of `start` to that of `end`."""
    if part == 1:
        return end
    life = (1 - part) * _life(start) + part * _life(end)
    return math.exp(-1 / life) if life > 0 else 0.0


def _life(beta: float) -> float:
    return -1 / math.log(beta) if beta > 0 else 0.0
