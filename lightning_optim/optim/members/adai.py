"""Adai."""

from __future__ import annotations

from typing import Any

from ..base import Group
from ..update import Update
from .member import Member


class Adai(Member, name="adai"):
    """SGD whose momentum is stronger where gradients are small (Xie et al., arXiv:2006.15815, algorithm 2).

    The lr is the same for all; what adapts is β1 = 1 - β0 v̂ / mean(v̂), clipped to [0, 1 - ε].

    **The mean is that of the tensor**, where the paper and the authors' code take it over all tensors with a gradient:
    tensors whose gradients are small as a whole get more momentum there, and not here. So a parameter's path depends on
    its own gradients alone, whatever else is frozen, sharded or in another group, as that of each of our optimizers. In
    a model of one tensor the two are the same. pytorch_optimizer has the global mean, but never below ε = 1e-3: where
    mean squares of gradients are smaller, as in most networks, each of its β1 tends to 1 - ε.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size, of a momentum that is an average: ten times that of SGD with momentum 0.9.
        betas: β0 >= 0, the strength of the adaptation; β2, decay rate of the squared gradient's average, in [0, 1).
        eps: no β1 is above 1 - ε; in (0, 1].
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `bias_correction1` (1 less the product of
    each β1 so far).

    Raises:
        ConfigError: a hyperparameter is unknown or out of bounds, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.Adai(nn.Linear(3, 2).parameters(), lr=1.0).defaults["betas"]
        (0.1, 0.99)
    """

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "bias_correction1")

    def coefficients(self, t: float, group: Group) -> dict[str, Any]:
        b0, b2 = group["betas"]
        return {"b0": b0, "b2": b2, "w2": 1 - b2, "eps": group["eps"], "lr": group["lr"]}

    @staticmethod
    def update(p, g, m, v, bias1, *, b0, b2, w2, eps, lr) -> Update:
        v.mul_(b2).addcmul_(g, g, value=w2)
        mean = v.mean()
        # 1 - β1. Both v̂ have the same bias correction; where all gradients were 0, so is v.
        w1 = (v / mean.where(mean.gt(0), 1.0)).mul_(b0).clamp_min_(eps).clamp_max_(1.0)
        m.lerp_(g, w1)
        bias1.addcmul_(w1, 1 - bias1)
        return Update(m, lr, over=bias1)
