"""AdaBelief."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments
from .radam import rectification


class AdaBelief(Member, name="adabelief"):
    """Adam scaled by how far gradients deviate from their average (Zhuang et al., arXiv:2010.07468, algorithm 2).

    eps is used twice, as in the paper: it is added to the variance `s` in the state at every step, so that `s` tends to
    eps / (1 - β2) where gradients are as predicted, and again to the root. For the floor that Adam gets from its eps,
    use eps = eps_adam². Deviations are measured from the average that already includes the gradient, as in
    pytorch_optimizer and optax (which has two separate eps); labml_nn adds eps outside the state. With `rectify` the
    step is adaptive once ρ_t >= 5, as in the authors' code; that code then ignores amsgrad, this class and
    pytorch_optimizer do not.

    State:
        exp_avg_var: running average of the squared deviation.

    Examples:
        >>> from torch import nn
        >>> optim.AdaBelief(nn.Linear(3, 2).parameters(), lr=1e-3).defaults["rectify"]
        True
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), rectify = group["betas"], group["rectify"]
        rho, rect = rectification(t, b2)
        root, size = (1 - b2**t) ** 0.5, group["lr"] / (1 - b1**t)
        adapt = not rectify or rho >= 5
        if rectify:
            size, root = size * (root * rect if adapt else float(group["degenerate_to_sgd"])), 1.0
        return {**moments(group), "size": size, "root": root, "adapt": adapt}

    @staticmethod
    def update(p, g, m, s, s_max=None, *, w1, b2, w2, eps, size, root, adapt) -> Update:
        m.lerp_(g, w1)
        deviation = g - m
        s.mul_(b2).addcmul_(deviation, deviation, value=w2).add_(eps)
        s_hat = s if s_max is None else s_max.clamp_min_(s)
        return Update(m, size, over=(s_hat.sqrt() / root).add_(eps) if adapt else None)
