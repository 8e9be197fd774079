"""Padam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class Padam(Member, name="padam"):
    """AMSGrad with a smaller power than the square root (Chen et al., arXiv:1806.06763, algorithm 1).

    The step is divided by v̂^p, where v̂ is the largest second moment so far: p = 1/2 is AMSGrad, p = 0 is SGD with
    momentum. It is bias-corrected like Adam's, by √(1 - β2^t) / (1 - β1^t) for every p, and eps is added to √v̂, as in
    the authors' code; the paper has no correction. pytorch_optimizer has no maximum, which is `amsgrad: false` here.

    Args:
        lr: learning rate, nearer to SGD's than to Adam's.
        partial: the power p; 1/2 is AMSGrad, 0 is SGD with momentum.

    Examples:
        >>> from torch import nn
        >>> optim.Padam(nn.Linear(3, 2).parameters(), partial=0.125).defaults["amsgrad"]
        True
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), "power": 2 * group["partial"], "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, v_max=None, *, w1, b2, w2, eps, power, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        return Update(m, size, over=v_hat.sqrt().add_(eps).pow_(power))
