"""AdaBound, and what differs from it by an option: AdaBoundW, AMSBound."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class AdaBound(Member, name="adabound"):
    """Adam whose steps are bounded ever closer to SGD's (Luo et al., arXiv:1902.09843, algorithm 2).

    The bounds are the authors' code's: they tend to final_lr · lr / peak_lr, so a schedule moves them too; `peak_lr` is
    the param group's, its lr when it was added, in the checkpoint with it. eps is added to the uncorrected root.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size at the start, > 0 when a group is added.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        final_lr: the step size of SGD that it ends with, at lr = peak_lr.
        gamma: how fast the bounds close, > 0: their distance falls as 1 / (γ t).
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        amsbound: divide by the largest second moment so far.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, with amsbound `max_exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group; a
            group's `peak_lr` is 0.

    Example:
        >>> from torch import nn
        >>> optim.AdaBound(nn.Linear(3, 2).parameters(), lr=1e-3).param_groups[0]["peak_lr"]
        0.001
    """

    needs_peak_lr = True

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        gamma, final_lr = group["gamma"], group["final_lr"] * group["lr"] / group["peak_lr"]
        bounds = {"lower": final_lr * (1 - 1 / (gamma * t + 1)), "upper": final_lr * (1 + 1 / (gamma * t))}
        return {**moments(group), **bounds, "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, v_max=None, *, w1, b2, w2, eps, size, lower, upper) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        eta = v_hat.sqrt().add_(eps).reciprocal_().mul_(size).clamp_min_(lower).clamp_max_(upper)
        return Update(eta.mul_(m))


class AdaBoundW(AdaBound, name="adaboundw"):
    """`AdaBound` with weight decay apart from gradient and lr (`absolute`), as the authors' code has it.

    Args, options and state are `AdaBound`'s.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group; a
            group's `peak_lr` is 0.

    Example:
        >>> from torch import nn
        >>> optim.AdaBoundW(nn.Linear(3, 2).parameters()).defaults["weight_decay_mode"]
        'absolute'
    """


class AMSBound(AdaBound, name="amsbound"):
    """`AdaBound` with `amsbound`, under the paper's name.

    Args, options and state are `AdaBound`'s with amsbound, which is not said again.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group; a
            group's `peak_lr` is 0; amsbound is given as false.

    Example:
        >>> from torch import nn
        >>> optim.AMSBound(nn.Linear(3, 2).parameters()).defaults["amsbound"]
        True
    """

    _fixed = MappingProxyType({"amsbound": True})
