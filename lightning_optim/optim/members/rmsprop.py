"""RMSprop."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class RMSprop(Member, name="rmsprop"):
    """Steps scaled by a running average (Tieleman & Hinton 2012, lecture 6.5), bitwise `torch.optim.RMSprop`.

    Args:
        eps: added to the denominator, after the root.
        momentum: factor of a running sum of the scaled gradients; 0: no momentum buffer.
        centered: divide by the standard deviation: subtract the squared mean gradient from the average (Graves,
            arXiv:1308.0850, eq. 38 to 41).

    State:
        square_avg: running average of squared gradients.
        momentum_buffer: running sum of scaled gradients.
        grad_avg: running average of gradients.

    Examples:
        >>> from torch import nn
        >>> optim.RMSprop(nn.Linear(3, 2).parameters(), momentum=0.9).defaults["alpha"]
        0.99
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        alpha, momentum = group["alpha"], group["momentum"]
        flags = {"has_momentum": momentum > 0, "centered": group["centered"]}
        return {"alpha": alpha, "w": 1 - alpha, "eps": group["eps"], "momentum": momentum, "lr": group["lr"], **flags}

    @staticmethod
    def update(p, g, v, *buffers, alpha, w, eps, momentum, lr, has_momentum, centered) -> Update:
        # buffers: the momentum with momentum > 0, then the mean gradient with centered.
        v.mul_(alpha).addcmul_(g, g, value=w)
        if centered:
            mean = buffers[-1].lerp_(g, w)
            over = v.addcmul(mean, mean, value=-1).sqrt_().add_(eps)
        else:
            over = v.sqrt().add_(eps)
        return Update(buffers[0].mul_(momentum).addcdiv_(g, over), lr) if has_momentum else Update(g, lr, over)
