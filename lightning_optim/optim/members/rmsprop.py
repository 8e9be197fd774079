"""RMSprop."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class RMSprop(Member, name="rmsprop"):
    """Steps scaled by a running average (Tieleman & Hinton 2012, lecture 6.5), bitwise `torch.optim.RMSprop`.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        alpha: decay rate of the running averages.
        eps: added to the denominator, after the root.
        weight_decay: coefficient, or a `WeightDecay`.
        momentum: factor of a running sum of the scaled gradients; 0: none is kept.
        centered: scale by the variance (Graves, arXiv:1308.0850, eq. 38 to 41).
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `square_avg`, with momentum `momentum_buffer`, with centered
    `grad_avg`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.RMSprop(nn.Linear(3, 2).parameters(), momentum=0.9).defaults["alpha"]
        0.99
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        alpha, momentum = group["alpha"], group["momentum"]
        flags = {"moving": momentum > 0, "centered": group["centered"]}
        return {"alpha": alpha, "w": 1 - alpha, "eps": group["eps"], "momentum": momentum, "lr": group["lr"], **flags}

    @staticmethod
    def update(p, g, v, *more, alpha, w, eps, momentum, lr, moving, centered) -> Update:
        # more: the momentum where it is moving, then the mean where it is centered
        v.mul_(alpha).addcmul_(g, g, value=w)
        if centered:
            mean = more[-1].lerp_(g, w)
            over = v.addcmul(mean, mean, value=-1).sqrt_().add_(eps)
        else:
            over = v.sqrt().add_(eps)
        return Update(more[0].mul_(momentum).addcdiv_(g, over), lr) if moving else Update(g, lr, over)
