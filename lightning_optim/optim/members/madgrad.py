"""MADGRAD."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member


class MADGRAD(Member, name="madgrad"):
    """Dual averaging by a cube root, with momentum (Defazio & Jelassi, arXiv:2101.11075, algorithm 1).

    The parameter is an average of points z = x0 - s / (v^(1/3) + ε), with x0 where it stood at its first gradient and
    s, v weighted sums of all gradients and of their squares. Little or no weight decay is needed. As in the authors'
    code, optax and pytorch_optimizer, ε is added to the lr too, but not where that is 0, as in the last.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size; to be searched anew, neither SGD's nor Adam's is near it.
        momentum: share of the parameter in the average of points, in [0, 1); with 0 no x0 is kept.
        eps: added to the cube root, and to the lr; > 0, where the authors also allow 0.
        weight_decay: coefficient, or a `WeightDecay`; `decoupled` is experimental, say the authors.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `grad_sum_sq`, `s`, with momentum `x0`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.MADGRAD(nn.Linear(3, 2).parameters(), momentum=0.0).defaults["lr"]
        0.01
    """

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        super().init_state(state, group, param)
        state.update({"x0": param.clone()} if "x0" in state else {})

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        lr, eps = group["lr"], group["eps"]
        return {"eps": eps, "w": (lr + eps) * t**0.5 if lr else 0.0, "third": 1 / 3, "size": 1 - group["momentum"]}

    @staticmethod
    def update(p, g, v, s, x0=None, *, eps, w, third, size) -> Update:
        # p - z. Without momentum p was the last z, which says where x0 is.
        away = p - x0 if x0 is not None else -s / v.pow(third).add_(eps)
        v.addcmul_(g, g, value=w)
        s.add_(g, alpha=w)
        return Update(away.addcdiv_(s, v.pow(third).add_(eps)), size)
