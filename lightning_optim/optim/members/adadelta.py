"""Adadelta."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Adadelta(Member, name="adadelta"):
    """Steps in the units of the parameter (Zeiler, arXiv:1212.5701, algorithm 1), bitwise `torch.optim.Adadelta`.

    Args:
        lr: factor on the step; the paper has none, hence the default of 1.

    State:
        square_avg: running average of squared gradients.
        acc_delta: running average of squared updates.

    Examples:
        >>> from torch import nn
        >>> optim.Adadelta(nn.Linear(3, 2).parameters()).defaults["rho"]
        0.9
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"rho": group["rho"], "w": 1 - group["rho"], "eps": group["eps"], "size": group["lr"]}

    @staticmethod
    def update(p, g, v, u, *, rho, w, eps, size) -> Update:
        v.mul_(rho).addcmul_(g, g, value=w)
        delta = u.add(eps).sqrt_().div_(v.add(eps).sqrt_()).mul_(g)
        u.mul_(rho).addcmul_(delta, delta, value=w)
        return Update(delta, size)
