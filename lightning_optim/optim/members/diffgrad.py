"""diffGrad."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class DiffGrad(Member, name="diffgrad"):
    """Adam with smaller steps where the gradient hardly changes (Dubey et al., arXiv:1909.11015).

    Each step is multiplied by the friction sigmoid(|g - previous g|), between 1/2 and 1; the previous gradient is
    initially 0. eps is added to the uncorrected root, as in the second version of the authors' code. In their first
    version the previous gradient was p.grad itself: where that is zeroed in place, the friction was always 1/2.

    State:
        previous_grad: the gradient of the previous step.

    Examples:
        >>> from torch import nn
        >>> optim.DiffGrad(nn.Linear(3, 2).parameters()).defaults["weight_decay_mode"]
        'l2'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, previous, *, w1, b2, w2, eps, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        friction = (previous - g).abs_().sigmoid_()
        previous.copy_(g)
        return Update(friction.mul_(m), size, over=v.sqrt().add_(eps))
