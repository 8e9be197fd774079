"""Lion."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Lion(Member, name="lion"):
    """Steps by the sign of an interpolated momentum (Chen et al., arXiv:2302.06675, algorithm 2).

    Every coordinate moves by lr: take it 3 to 10 times smaller than AdamW's, and weight_decay as much larger.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        betas: weights of the momentum in the step and in its own average, in [0, 1).
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
