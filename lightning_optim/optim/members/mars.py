"""MARS."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class MARS(Member, name="mars"):
    """AdamW on gradients of less variance (Yuan et al., arXiv:2411.10438, MARS-AdamW, the approximate form).

    The gradient is moved on from that of the step before, by γ β1 / (1 - β1) of the difference, and clipped to norm 1
    in each tensor. Before a parameter's first step that gradient is 0, as in the authors' code; the exact form would
    evaluate the last batch again. The rule takes every tensor. What they do by default, AdamW where a tensor is no
    matrix, is a rule of the config: `{kinds: [bias, norm, vector], optimizer: adamw}`.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: decay rates of the running averages of the corrected gradient and of its square, in [0, 1).
        gamma: γ, how much of the variance is corrected; 0 is AdamW with its gradients clipped.
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `previous_grad`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.MARS(nn.Linear(3, 2).parameters(), weight_decay=0.1).defaults["gamma"]
        0.025
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, _ = group["betas"]
        return {**moments(group), **bias_corrections(t, group), "ahead": group["gamma"] * b1 / (1 - b1)}

    @staticmethod
    def update(p, g, m, v, before, *, w1, b2, w2, eps, ahead, size, root) -> Update:
        c = (g - before).mul_(ahead).add_(g)
        before.copy_(g)
        c.div_(c.norm().clamp_min(1.0))
        m.lerp_(c, w1)
        v.mul_(b2).addcmul_(c, c, value=w2)
        return Update(m, size, over=(v.sqrt() / root).add_(eps))
