"""Adam, and what differs from it by an option: AdamW, AMSGrad."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments


class Adam(Member, name="adam"):
    """Adam (Kingma & Ba, arXiv:1412.6980, algorithm 1), bitwise `torch.optim.Adam`.

    With a tensor lr torch computes with tensors, and differs by 1e-9; ours is the number it holds. For the equations
    of each of the family type `lightning-optim show` and its name.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size, a number or a tensor of one element.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator. In float16 the default is 0, as in torch, and what has had no gradient but 0
            becomes NaN: use bfloat16, float32 or `master_weights`.
        weight_decay: coefficient, or a `WeightDecay`.
        amsgrad: divide by the largest second moment so far (arXiv:1904.09237), taken before bias correction as torch
            and the paper have it.
        optimized_update: add eps to the uncorrected second moment's root (the paper, end of section 2, where
            ε̂ = √(1 - β2^t) ε makes the two equal); torch's is the form without.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`, and the modifiers, which
            all of the family take: `skip_nonfinite`, `centralize_gradients`, `adaptive_clip`, `cautious_update`,
            `lookahead`, `master_weights`. `lightning-optim show adam` says what each does.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, with amsgrad `max_exp_avg_sq`.

    Beside its own, the state of each of the family has `step`, a count of no dimension on the CPU; with lookahead
    `slow`; with skip_nonfinite the number `skipped`, once a step was; with master_weights, where the parameter is of
    16 bits, `master`, and all of it in float32.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.Adam(nn.Linear(3, 2).parameters(), lr=1e-3, weight_decay_mode="relative").defaults["betas"]
        (0.9, 0.999)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        size, root = group["lr"] / (1 - b1**t), (1 - b2**t) ** 0.5
        if group["optimized_update"]:
            size, root = size * root, 1.0
        return {**moments(group), "size": size, "root": root}

    @staticmethod
    def update(p, g, m, v, v_max=None, *, w1, b2, w2, eps, size, root) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        return Update(m, size, over=(v_hat.sqrt() / root).add_(eps))


class AdamW(Adam, name="adamw"):
    """`Adam` with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101), bitwise `torch.optim.AdamW`.

    Args, options and state are `Adam`'s; weight_decay is 0.01 by default.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.AdamW(nn.Linear(3, 2).parameters()).param_groups[0]["weight_decay_mode"]
        'decoupled'
    """


class AMSGrad(Adam, name="amsgrad"):
    """`Adam` with `amsgrad` (Reddi et al., arXiv:1904.09237, algorithm 2), under the paper's name.

    The maximum is of uncorrected moments, as in torch, and corrected after it; optax corrects before it, or not at all.

    Args, options and state are `Adam`'s with amsgrad, which is not said again.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group;
            amsgrad is given as false.

    Example:
        >>> from torch import nn
        >>> optim.AMSGrad(nn.Linear(3, 2).parameters(), lr=1e-3).defaults["amsgrad"]
        True
    """

    _fixed = MappingProxyType({"amsgrad": True})
