"""LAMB."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class LAMB(Member, name="lamb"):
    """Adam whose step in each tensor is proportional to the tensor's norm (You et al., arXiv:1904.00962, algorithm 2).

    φ is the identity and both moments are bias-corrected, as in the paper's algorithm and in optax; pytorch_optimizer
    clips ‖p‖ at 10 and does not correct the second moment, timm skips the ratio where there is no weight decay. The
    ratio is 1 where ‖p‖ or ‖r‖ is 0, so that zero-initialized tensors move. The ratio uses the parameter before any
    decay of the parameter itself.

    Args:
        lr: learning rate, relative to the tensor's norm.
        weight_decay: weight decay coefficient; `update`, inside the ratio, is the paper's.

    Examples:
        >>> from torch import nn
        >>> optim.LAMB(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["weight_decay_mode"]
        'update'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        decay = group["weight_decay"] if group["weight_decay_mode"] == "update" else 0.0
        bias = {"bias1": 1 - b1**t, "root": (1 - b2**t) ** 0.5}
        return {**moments(group), **bias, "decay": decay, "decays": decay > 0, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, bias1, root, decay, decays, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        r = (m / bias1).div_((v.sqrt() / root).add_(eps))
        if decays:
            r.add_(p, alpha=decay)
        return Update(r.mul_(trust_ratio(p, r)), size)


def trust_ratio(p: Any, r: Any) -> Any:
    """‖p‖ / ‖r‖ of each tensor, 0-d; 1 where a norm is 0."""
    size, step = p.norm(), r.norm()
    return (size / step).where(size.gt(0).logical_and(step.gt(0)), 1.0)
