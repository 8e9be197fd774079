"""QHAdam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class QHAdam(Member, name="qhadam"):
    """Adam between its moments and the gradient itself (Ma & Yarats, arXiv:1810.06801, eq. 15).

    The step is a mean of gradient and corrected momentum, ν1 the momentum's share; so is the second moment with ν2.
    nus = (1, 1) is Adam, and the authors' default; they advise nus = (0.7, 1) with betas = (0.995, 0.999).

    Their code keeps the corrected averages in the state, we correct as we read; that is the same. pytorch_optimizer
    keeps the weights of that correction in float32, which limits it to 1e-8 in float64.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        nus: shares of the averages, in [0, 1], against the present gradient and its square.
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.QHAdam(nn.Linear(3, 2).parameters(), nus=(0.7, 1.0), betas=(0.995, 0.999)).defaults["nus"]
        (0.7, 1.0)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), (nu1, nu2) = group["betas"], group["nus"]
        averages = {"of_m": nu1 / (1 - b1**t), "of_v": nu2 / (1 - b2**t)}
        return {**moments(group), **averages, "of_g": 1 - nu1, "of_square": 1 - nu2, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, of_m, of_v, of_g, of_square, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        over = v.mul(of_v).addcmul_(g, g, value=of_square).sqrt_().add_(eps)
        return Update(m.mul(of_m).add_(g, alpha=of_g), size, over)
