"""AdaBelief."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import moments
from .radam import rectification


class AdaBelief(Member, name="adabelief"):
    """Adam scaled by how far gradients stray from their average (Zhuang et al., arXiv:2010.07468, algorithm 2).

    eps stands twice, as in the paper: it is added to the variance `s` in the state at every step, so that `s` tends to
    eps / (1 - β2) where gradients are as predicted, and again to the root. For the floor that Adam has from its eps,
    take eps = eps_adam². The gradient's distance is measured from the average that holds it already. So do
    pytorch_optimizer and optax (whose two eps are apart); labml_nn adds eps beside the state. With `rectify` the step
    adapts once ρ_t >= 5, as in the authors' code, which then forgets amsgrad: we and pytorch_optimizer do not.

    Args and options are `Adam`'s, less optimized_update; the decay is decoupled by default. And:

    Args:
        amsgrad: divide by the largest variance so far.
        rectify: rectify the variance as `RAdam` does.
        degenerate_to_sgd: until then, take SGD's step with momentum; else none (decay goes on).

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_var`, with amsgrad `max_exp_avg_var`. In
    float16 the default eps is 0: use bfloat16 or float32.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
        surprise = g - m
        s.mul_(b2).addcmul_(surprise, surprise, value=w2).add_(eps)
        s_hat = s if s_max is None else s_max.clamp_min_(s)
        return Update(m, size, over=(s_hat.sqrt() / root).add_(eps) if adapt else None)
