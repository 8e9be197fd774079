"""SGD."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class SGD(Member, name="sgd"):
    """Stochastic gradient descent (Robbins & Monro 1951), bitwise `torch.optim.SGD`.

    Its momentum is that of Sutskever et al. 2013. Torch's class takes sparse gradients too, and has no modifiers.

    Args:
        dampening: the momentum adds (1 - dampening) g, but g in the first step, as in torch.

    State:
        momentum_buffer: running sum of gradients.

    Examples:
        >>> from torch import nn
        >>> optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1, momentum=0.9).defaults["dampening"]
        0.0
    """

    _torch_counts_steps = False

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        flags = {"has_momentum": group["momentum"] > 0, "first": t == 1, "nesterov": group["nesterov"]}
        return {"lr": group["lr"], "momentum": group["momentum"], "w": 1 - group["dampening"], **flags}

    @staticmethod
    def update(p, g, b=None, *, lr, momentum, w, has_momentum, first, nesterov) -> Update:
        if not has_momentum:
            return Update(g, lr)
        if first:
            b.copy_(g)
        else:
            b.mul_(momentum).add_(g, alpha=w)
        return Update(g.add(b, alpha=momentum) if nesterov else b, lr)
