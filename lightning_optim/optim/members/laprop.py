"""LaProp."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class LaProp(Member, name="laprop"):
    """The momentum of Adam's normalised gradients (Ziyin et al., arXiv:2002.04839, algorithm 1).

    Each gradient is divided by the root of its second moment before it is averaged, so β1 and β2 may be chosen apart.
    The lr stands outside the average, as in the paper. The authors' code and pytorch_optimizer have it inside and weigh
    each gradient by the lr of its step: the same at a constant lr, another rule under a schedule. Decay comes before
    the step, and is decoupled; the authors' code multiplies by 1 - λ after it (`absolute`).

    Args and options are `Adam`'s, less amsgrad and optimized_update; the decay is decoupled by default. An eps of
    1e-15, the authors', is 0 in float16: use bfloat16 or float32.

    State of each parameter, of its shape and dtype: `exp_avg` (of normalised gradients), `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.LaProp(nn.Linear(3, 2).parameters()).defaults["lr"]
        0.0004
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **bias_corrections(t, group)}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, root, size) -> Update:
        v.mul_(b2).addcmul_(g, g, value=w2)
        m.lerp_(g / (v.sqrt() / root).add_(eps), w1)
        return Update(m, size)
