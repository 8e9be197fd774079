"""MADGRAD."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member


class MADGRAD(Member, name="madgrad"):
    """Dual averaging with a cube root, and momentum (Defazio & Jelassi, arXiv:2101.11075, algorithm 1).

    The parameter is an average of points z = x0 - s / (v^(1/3) + ε), where x0 is the parameter before its first step
    and s, v are weighted sums of all gradients and of their squares. Little or no weight decay is needed. As in the
    authors' code, optax and pytorch_optimizer, ε is also added to lr, but not where lr is 0, as in the last.

    Args:
        lr: learning rate; tune it anew, as neither SGD's nor Adam's is close.
        weight_decay: weight decay coefficient; the authors call `decoupled` experimental.
        eps: added to the cube root, and to lr. With 0, a coordinate stays where it is until it has a gradient, as in
            the authors' code.
        schedule_free: not supported: the parameter is an average of points itself.

    State:
        grad_sum_sq: weighted sum of squared gradients.
        s: weighted sum of gradients.
        x0: the parameter before its first step.

    Examples:
        >>> from torch import nn
        >>> optim.MADGRAD(nn.Linear(3, 2).parameters(), momentum=0.0).defaults["lr"]
        0.01
    """

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        super().init_state(state, group, param)
        state.update({"x0": param.clone()} if "x0" in state else {})

    def denominator_floor(self, group: ParamGroup) -> float | None:
        return float(group["eps"]) or None

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        lr, eps = group["lr"], group["eps"]
        root = {"eps": eps, "has_eps": eps > 0, "third": 1 / 3}
        return {**root, "w": (lr + eps) * t**0.5 if lr else 0.0, "size": 1 - group["momentum"]}

    @staticmethod
    def update(p, g, v, s, x0=None, *, w, size, **root) -> Update:
        # The step is p - z, and offset is p - x0: without momentum p is the last z, which gives x0.
        offset = p - x0 if x0 is not None else -s / denominator(v, **root)
        v.addcmul_(g, g, value=w)
        s.add_(g, alpha=w)
        return Update(offset.addcdiv_(s, denominator(v, **root)), size)


def denominator(v: Any, *, eps: float, has_eps: bool, third: float) -> Any:
    """v^(1/3) + ε; without ε, infinity where v is 0."""
    root = v.pow(third)
    return root.add_(eps) if has_eps else root.add_(v.sign().reciprocal_().sub_(1.0))
