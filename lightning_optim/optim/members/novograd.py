"""NovoGrad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member


class NovoGrad(Member, name="novograd"):
    """Momentum of gradients divided by their norm in each tensor (Ginsburg et al., arXiv:1905.11286, algorithm 1).

    The first gradient alone sets the first second moment, and there is no bias correction, as in the authors' code and
    in optax. With `grad_averaging` the first gradient is weighted by 1 - β1 too, as in the authors' code; not in
    pytorch_optimizer.

    Args:
        weight_decay: weight decay coefficient; `update`, added to the scaled gradient, is the paper's.

    State:
        sq_norm_avg: running average of ‖g‖², one number of its dtype.

    Examples:
        >>> from torch import nn
        >>> optim.NovoGrad(nn.Linear(3, 2).parameters(), lr=0.01).defaults["betas"]
        (0.95, 0.98)
    """

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        return {"sq_norm_avg": (1,)}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        decay = group["weight_decay"] if group["weight_decay_mode"] == "update" else 0.0
        weights = {"b1": b1, "w1": 1 - b1 if group["grad_averaging"] else 1.0, "w2": 1.0 if t == 1 else 1 - b2}
        return {**weights, "eps": group["eps"], "decay": decay, "decays": decay > 0, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, v, *, b1, w1, w2, eps, decay, decays, size) -> Update:
        step = g / v.lerp_(g.norm().pow(2), w2).squeeze().sqrt().add_(eps)
        if decays:
            step.add_(p, alpha=decay)
        return Update(m.mul_(b1).add_(step, alpha=w1), size)
