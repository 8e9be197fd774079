"""NAdam and NAdamW."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..bucket import scalar
from ..update import Update
from .member import Member
from .moments import moments


class NAdam(Member, name="nadam"):
    """Adam with Nesterov momentum (Dozat 2016, algorithm 2), bitwise the loop of `torch.optim.NAdam`.

    As in torch, μ follows its schedule, and the product of all μ is rounded to float32 (to float64 where that is the
    default dtype), which limits the precision to 1e-7 even with float64 parameters. optax and timm have a constant β1
    in place of the schedule.

    Args:
        momentum_decay: ψ of the momentum schedule μ_t = β1 (1 - 0.96^(t ψ) / 2).

    State:
        mu_product: the product of all μ so far, a float.

    Examples:
        >>> from torch import nn
        >>> optim.NAdam(nn.Linear(3, 2).parameters(), lr=2e-3).scalars({})
        {'mu_product': 1.0}
    """

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"mu_product": 1.0}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), lr, psi = group["betas"], group["lr"], group["momentum_decay"]
        mu, mu_next = (b1 * (1.0 - 0.5 * 0.96 ** (step * psi)) for step in (t, t + 1))
        product = scalar(group["mu_product"]).mul_(mu).item()  # rounded, as in torch
        sizes = {"size_g": lr * (1.0 - mu) / (1.0 - product), "size_m": lr * mu_next / (1.0 - product * mu_next)}
        return {**moments(group), **sizes, "bias2": 1 - b2**t, "mu_product": product}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, bias2, size_g, size_m) -> tuple[Update, Update]:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        over = v.div(bias2).sqrt_().add_(eps)
        return Update(g, size_g, over), Update(m, size_m, over)


class NAdamW(NAdam, name="nadamw"):
    """`NAdam` with decoupled weight decay, bitwise `torch.optim.NAdam(decoupled_weight_decay=True)`.

    Paper: Dozat 2016; Loshchilov & Hutter, arXiv:1711.05101.

    Examples:
        >>> from torch import nn
        >>> optim.NAdamW(nn.Linear(3, 2).parameters()).defaults["weight_decay_mode"]
        'decoupled'
    """
