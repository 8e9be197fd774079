"""AdaMod."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class AdaMod(Member, name="adamod"):
    """Adam whose step sizes are bounded by their own running average (Ding et al., arXiv:1910.12249, algorithm 1).

    The bound starts at 0 and is not bias-corrected, so it also acts as a warm-up of 1 / (1 - β3) steps. It averages the
    factor of the uncorrected momentum, and eps is added to the uncorrected root, as in the authors' code. The defaults
    are the authors'; those of pytorch_optimizer are betas (0.9, 0.99) and β3 0.9999.

    Args:
        beta3: decay rate of the running average of step sizes; 0 is Adam.

    State:
        exp_avg_lr: running average of step sizes.

    Examples:
        >>> from torch import nn
        >>> optim.AdaMod(nn.Linear(3, 2).parameters(), beta3=0.9999).defaults["weight_decay_mode"]
        'decoupled'
    """

    # The reciprocal must fit into float16 too, which ends at 65504.
    def denominator_floor(self, group: ParamGroup) -> float | None:
        return float(group["eps"] / 512)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), "w3": 1 - group["beta3"], "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, bound, *, w1, b2, w2, eps, w3, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        eta = v.sqrt().add_(eps).reciprocal_().mul_(size)
        bound.lerp_(eta, w3)
        return Update(eta.clamp_max_(bound).mul_(m))
