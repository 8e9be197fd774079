"""diffGrad."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class DiffGrad(Member, name="diffgrad"):
    """Adam with friction where the gradient hardly changes (Dubey et al., arXiv:1909.11015).

    Each step is multiplied by sigmoid(|g - g of the step before|), from 1/2 to 1; before the first step that gradient
    is 0. eps is added to the uncorrected root, as in the authors' second version, which we follow. In their first, the
    gradient of the step before was p.grad itself: where that is zeroed in place, the friction was 1/2 throughout.

    Args and options are `Adam`'s, less amsgrad and optimized_update.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `previous_grad`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.DiffGrad(nn.Linear(3, 2).parameters()).defaults["weight_decay_mode"]
        'l2'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, before, *, w1, b2, w2, eps, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        friction = (before - g).abs_().sigmoid_()
        before.copy_(g)
        return Update(friction.mul_(m), size, over=v.sqrt().add_(eps))
