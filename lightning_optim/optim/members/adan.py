"""Adan."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Adan(Member, name="adan"):
    """Adam with Nesterov momentum from differences of gradients (Xie et al., arXiv:2208.06677, algorithm 1).

    betas are decay rates, as in the authors' code; the paper's are 1 minus these. The difference is 0 at the first
    step. All three averages are bias-corrected, as in that code. Weight decay is decoupled, which that code calls
    `no_prox`; its default divides the parameter by 1 + lr λ after the step. optax weights the differences by 1 - β2,
    which is the paper's formula with the code's β2: 0.08 where it should be 0.92.

    State:
        exp_avg_diff: running average of gradient differences.
        exp_avg_sq: running average of (g + β2 δ)².
        previous_grad: the gradient of the previous step.

    Examples:
        >>> from torch import nn
        >>> optim.Adan(nn.Linear(3, 2).parameters(), weight_decay=0.02).defaults["betas"]
        (0.98, 0.92, 0.99)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2, b3), lr = group["betas"], group["lr"]
        averages = {"w1": 1 - b1, "b2": b2, "w2": 1 - b2, "b3": b3, "w3": 1 - b3, "root": (1 - b3**t) ** 0.5}
        sizes = {"size": lr / (1 - b1**t), "size_d": lr * b2 / (1 - b2**t)}
        return {**averages, **sizes, "eps": group["eps"], "first": t == 1}

    @staticmethod
    def update(p, g, m, d, n, previous, *, w1, b2, w2, b3, w3, root, size, size_d, eps, first) -> tuple[Update, Update]:
        diff = g - (g if first else previous)
        previous.copy_(g)
        m.lerp_(g, w1)
        d.lerp_(diff, w2)
        ahead = diff.mul_(b2).add_(g)
        n.mul_(b3).addcmul_(ahead, ahead, value=w3)
        over = (n.sqrt() / root).add_(eps)
        return Update(m, size, over), Update(d, size_d, over)
