"""QHAdam."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class QHAdam(Member, name="qhadam"):
    """Adam that interpolates between its moments and the gradient (Ma & Yarats, arXiv:1810.06801, eq. 15).

    The step is a weighted mean of the gradient and the corrected momentum, whose weight is ν1; ν2 does the same for the
    second moment. nus = (1, 1) is Adam, and the authors' default; they recommend nus = (0.7, 1) with betas = (0.995,
    0.999).

    Their code stores the corrected averages, this class corrects them when they are used; the results are the same.
    pytorch_optimizer stores the weights of that correction in float32, which limits it to 1e-8 in float64.

    Args:
        nus: weights ν1, ν2 of the running averages against the current gradient and its square.

    Examples:
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
