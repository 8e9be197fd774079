"""LARS."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class LARS(Member, name="lars"):
    """SGD whose step in each tensor is in proportion to the tensor's norm (You et al., arXiv:1708.03888, algorithm 1).

    As in the paper, lr stands inside the momentum, and ‖g‖ + λ ‖p‖ under the ratio. optax has ‖g + λ p‖ there, which is
    `weight_decay_mode: l2`; pytorch_optimizer multiplies the momentum by the lr, and leaves vectors as they are: give
    them a group of another algorithm, as most do. The ratio is 1 where a norm is 0, so that zero-initialised tensors
    move; there and in both of those the step is lr g, without the trust coefficient. The paper has no lr for all cases:
    with 1 a step is a thousandth of the tensor's norm.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        momentum: factor of the running sum of steps; 0: none is kept.
        trust_coefficient: the part of a tensor's norm that a step of lr 1 moves it by.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (`update`: inside the ratio, the paper's), `cautious_decay`, the modifiers (see
            `Adam`), `maximize`, `foreach`, `fused`.

    State of each parameter, of its shape and dtype: with momentum `momentum_buffer`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
