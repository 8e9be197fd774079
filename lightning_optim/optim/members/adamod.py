"""AdaMod."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class AdaMod(Member, name="adamod"):
    """Adam whose step sizes are bounded by their own running average (Ding et al., arXiv:1910.12249, algorithm 1).

    The bound starts at 0 and is not corrected, so it is a warm-up too: of 1 / (1 - β3) steps. It holds the factor of
    the uncorrected momentum, and eps is added to the uncorrected root, as in the authors' code, whose defaults these
    are; pytorch_optimizer's are betas (0.9, 0.99) and β3 0.9999.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        beta3: decay rate of the running average of step sizes, in [0, 1); 0 is Adam.
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `exp_avg_lr`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.AdaMod(nn.Linear(3, 2).parameters(), beta3=0.9999).defaults["weight_decay_mode"]
        'decoupled'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), "w3": 1 - group["beta3"], "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, bound, *, w1, b2, w2, eps, w3, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        eta = v.sqrt().add_(eps).reciprocal_().mul_(size)
        bound.lerp_(eta, w3)
        return Update(eta.clamp_max_(bound).mul_(m))
