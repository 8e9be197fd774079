"""ADOPT."""

from __future__ import annotations

import math
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class ADOPT(Member, name="adopt"):
    """Adam that converges with any β2: v leaves the present gradient out (Taniguchi et al., arXiv:2411.02853).

    The gradient is divided by the root of the second moment *before* it, and then averaged. The first gradient only
    sets that moment: no step is taken, while a decay of the parameter itself goes on, as in pytorch_optimizer; the
    authors' code leaves it out that once.

    `clip` bounds each normalised gradient by (t - 1)^(1/4), as the authors' code does since its second version, against
    the first gradients being near 0; the first step is within ±1, as there and in optax, pytorch_optimizer's within
    ±2^(1/4).

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: decay rates of the running averages of the normalised gradient and of the squared one, in [0, 1).
        eps: least denominator; it is not added.
        weight_decay: coefficient, or a `WeightDecay`.
        clip: bound the normalised gradients.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg` (of normalised gradients), `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.ADOPT(nn.Linear(3, 2).parameters(), weight_decay_mode="decoupled").defaults["clip"]
        True
    """

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
