"""AdaBound and its variants AdaBoundW and AMSBound."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr, moments


class AdaBound(Member, name="adabound"):
    """Adam whose step sizes are bounded, ever closer to SGD's (Luo et al., arXiv:1902.09843, algorithm 2).

    The bounds are those of the authors' code: they converge to final_lr · lr / peak_lr, so a schedule moves them too.
    `peak_lr` is a key of the param group, its lr when it was added; checkpoints hold it. eps is added to the
    uncorrected root.

    Args:
        lr: learning rate; must be > 0 when a group is added.
        gamma: convergence speed of the bounds: the distance between them falls as 1 / (γ t).

    Examples:
        >>> from torch import nn
        >>> optim.AdaBound(nn.Linear(3, 2).parameters(), lr=1e-3).param_groups[0]["peak_lr"]
        0.001
    """

    needs_peak_lr = True

    def denominator_floor(self, group: ParamGroup) -> float | None:
        return None  # the quotient is clamped

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
    """`AdaBound` with weight decay decoupled from the gradient and the lr (`absolute`), as in the authors' code.

    Paper: Luo et al., arXiv:1902.09843; Loshchilov & Hutter, arXiv:1711.05101.

    Examples:
        >>> from torch import nn
        >>> optim.AdaBoundW(nn.Linear(3, 2).parameters()).defaults["weight_decay_mode"]
        'absolute'
    """


class AMSBound(AdaBound, name="amsbound"):
    """`AdaBound` with `amsbound`, under the name that the paper gives it (Luo et al., arXiv:1902.09843).

    Examples:
        >>> from torch import nn
        >>> optim.AMSBound(nn.Linear(3, 2).parameters()).defaults["amsbound"]
        True
    """

    _fixed = MappingProxyType({"amsbound": True})
