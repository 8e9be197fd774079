"""Padam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class Padam(Member, name="padam"):
    """AMSGrad with a root between Adam's and none (Chen et al., arXiv:1806.06763, algorithm 1).

    The step is divided by v̂^p, v̂ the largest second moment so far: p = 1/2 is AMSGrad, p = 0 SGD with momentum. It is
    corrected as Adam's, by √(1 - β2^t) / (1 - β1^t) whatever p is, and eps is added to √v̂, as in the authors' code; the
    paper corrects nothing. pytorch_optimizer leaves the maximum out, which is `amsgrad: false` here.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size; near SGD's, not Adam's.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        partial: p, in [0, 1/2].
        eps: added to √v̂.
        weight_decay: coefficient, or a `WeightDecay`.
        amsgrad: divide by the largest second moment so far, as the paper does.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, with amsgrad `max_exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
