"""Lion."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Lion(Member, name="lion"):
    """Sign of an interpolated momentum (Chen et al., arXiv:2302.06675, algorithm 2).

    Every coordinate moves by lr: use an lr 3 to 10 times smaller than AdamW's, and a weight_decay larger by that
    factor.

    Examples:
        >>> from torch import nn
        >>> optim.Lion(nn.Linear(3, 2).parameters(), lr=1e-4, weight_decay=0.1).defaults["betas"]
        (0.9, 0.99)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        return {"b1": b1, "w1": 1 - b1, "w2": 1 - b2, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, *, b1, w1, w2, size) -> Update:
        step = m.mul(b1).add_(g, alpha=w1).sign_()
        m.lerp_(g, w2)
        return Update(step, size)
