"""Signum."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Signum(Member, name="signum"):
    """Steps by the sign of a running average of gradients (Bernstein et al., arXiv:1802.04434, algorithm 2).

    With momentum 0 it is signSGD, algorithm 1. Every coordinate moves by lr, as `Lion`'s do. The decay is the authors',
    apart from the sign, as in pytorch_optimizer.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size; the default is the authors' for ImageNet.
        momentum: decay rate of the running average, in [0, 1); 0: none is kept.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: with momentum `exp_avg`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.Signum(nn.Linear(3, 2).parameters(), lr=1e-4).defaults["momentum"]
        0.9
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"w": 1 - group["momentum"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m=None, *, w, size) -> Update:
        return Update((g if m is None else m.lerp_(g, w)).sign(), size)
