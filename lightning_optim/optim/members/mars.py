"""MARS."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class MARS(Member, name="mars"):
    """AdamW on gradients with reduced variance (Yuan et al., arXiv:2411.10438, MARS-AdamW, the approximate form).

    The gradient is extrapolated from the previous one by γ β1 / (1 - β1) times their difference, and clipped to norm 1
    in each tensor. The previous gradient is initially 0, as in the authors' code; the exact form would evaluate the
    last batch again. All tensors are stepped by this rule. The authors use AdamW for tensors that are not matrices; in
    a config that is a rule: `{kinds: [bias, norm, vector], optimizer: adamw}`.

    Args:
        betas: decay rates of the running averages of the corrected gradient and of its square.
        gamma: γ, strength of the variance reduction; 0 is AdamW with clipped gradients.

    State:
        previous_grad: the gradient of the previous step.

    Examples:
        >>> from torch import nn
        >>> optim.MARS(nn.Linear(3, 2).parameters(), weight_decay=0.1).defaults["gamma"]
        0.025
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, _ = group["betas"]
        return {**moments(group), **bias_corrections(t, group), "ahead": group["gamma"] * b1 / (1 - b1)}

    @staticmethod
    def update(p, g, m, v, previous, *, w1, b2, w2, eps, ahead, size, root) -> Update:
        c = (g - previous).mul_(ahead).add_(g)
        previous.copy_(g)
        c.div_(c.norm().clamp_min(1.0))
        m.lerp_(c, w1)
        v.mul_(b2).addcmul_(c, c, value=w2)
        return Update(m, size, over=(v.sqrt() / root).add_(eps))
