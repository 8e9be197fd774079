"""Adam and its variants AdamW and AMSGrad."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import advance_m, moments


class Adam(Member, name="adam"):
    """Adam (Kingma & Ba, arXiv:1412.6980, algorithm 1), bitwise `torch.optim.Adam`.

    With a tensor lr, torch computes with tensors and its results differ by 1e-9; here the number in the tensor is used.

    Args:
        amsgrad: divide by the largest second moment so far (arXiv:1904.09237), taken before bias correction as in torch
            and the paper.
        optimized_update: add eps to the root of the uncorrected second moment (end of section 2 of the paper, where ε̂
            = √(1 - β2^t) ε makes the two forms equal); torch has the form without.

    Examples:
        >>> from torch import nn
        >>> optim.Adam(nn.Linear(3, 2).parameters(), lr=1e-3, weight_decay_mode="relative").defaults["betas"]
        (0.9, 0.999)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        size, root = group["lr"] / (1 - b1**t), (1 - b2**t) ** 0.5
        if group["optimized_update"]:
            size, root = size * root, 1.0
        return {**moments(group), "size": size, "root": root, "has_m": self.has_first_moment(group)}

    @staticmethod
    def update(p, g, *buffers, w1, b2, w2, eps, size, root, has_m=True) -> Update:
        # buffers: m, unless schedule_free averages in its place; v; with amsgrad its maximum.
        m, v, v_max = advance_m(g, buffers, w1, has_m)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        return Update(m, size, over=(v_hat.sqrt() / root).add_(eps))


class AdamW(Adam, name="adamw"):
    """`Adam` with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101), bitwise `torch.optim.AdamW`.

    Examples:
        >>> from torch import nn
        >>> optim.AdamW(nn.Linear(3, 2).parameters()).param_groups[0]["weight_decay_mode"]
        'decoupled'
    """


class AMSGrad(Adam, name="amsgrad"):
    """`Adam` with `amsgrad` (Reddi et al., arXiv:1904.09237, algorithm 2), under the name that the paper gives it.

    The maximum is taken of uncorrected moments, as in torch, and corrected afterwards; optax corrects before it, or not
    at all.

    Examples:
        >>> from torch import nn
        >>> optim.AMSGrad(nn.Linear(3, 2).parameters(), lr=1e-3).defaults["amsgrad"]
        True
    """

    _fixed = MappingProxyType({"amsgrad": True})
