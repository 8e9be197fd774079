"""Adadelta."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Adadelta(Member, name="adadelta"):
    """Steps in the units of the parameter (Zeiler, arXiv:1212.5701, algorithm 1), bitwise `torch.optim.Adadelta`.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: factor of the step; the paper has none, so 1.
        rho: decay rate of the running averages, in [0, 1].
        eps: added under both roots.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `square_avg` (of gradients), `acc_delta` (of squared steps).

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
