"""Signum."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Signum(Member, name="signum"):
    """Sign of a running average of gradients (Bernstein et al., arXiv:1802.04434, algorithm 2).

    With momentum 0 it is signSGD, algorithm 1. Every coordinate moves by lr, as in `Lion`. The decay is the authors',
    not inside the sign, as in pytorch_optimizer.

    Args:
        lr: learning rate; the default is the authors' for ImageNet.

    Examples:
        >>> from torch import nn
        >>> optim.Signum(nn.Linear(3, 2).parameters(), lr=1e-4).defaults["momentum"]
        0.9
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"w": 1 - group["momentum"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m=None, *, w, size) -> Update:
        return Update((g if m is None else m.lerp_(g, w)).sign(), size)
