"""LARS."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class LARS(Member, name="lars"):
    """SGD whose step in each tensor is proportional to the tensor's norm (You et al., arXiv:1708.03888, algorithm 1).

    As in the paper, lr is inside the momentum, and the ratio divides by ‖g‖ + λ ‖p‖. optax divides by ‖g + λ p‖, which
    is `weight_decay_mode: l2`. pytorch_optimizer multiplies the momentum by lr, and does not scale vectors: give them a
    group with another algorithm, as is common. The ratio is 1 where a norm is 0, so that zero-initialized tensors move;
    there the step is lr g without the trust coefficient, as in both of those. The paper has no single lr: with 1, a
    step is a thousandth of the tensor's norm.

    Args:
        weight_decay: weight decay coefficient; `update`, inside the ratio, is the paper's.

    Examples:
        >>> from torch import nn
        >>> optim.LARS(nn.Linear(3, 2).parameters(), lr=2.0, weight_decay=1e-4).defaults["weight_decay_mode"]
        'update'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        decay = group["weight_decay"] if group["weight_decay_mode"] == "update" else 0.0
        names = ("momentum", "lr")
        return {**{name: group[name] for name in names}, "trust": group["trust_coefficient"], "decay": decay}

    @staticmethod
    def update(p, g, v=None, *, momentum, lr, trust, decay) -> Update:
        size = p.norm()
        below = g.norm().add(size, alpha=decay)
        ratio = (size * trust / below).where(size.gt(0).logical_and(below.gt(0)), 1.0)
        step = g.add(p, alpha=decay).mul_(ratio)
        return Update(step, lr) if v is None else Update(v.mul_(momentum).add_(step, alpha=lr))
