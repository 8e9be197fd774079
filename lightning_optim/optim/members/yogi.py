"""Yogi."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import corrected_lr


class Yogi(Member, name="yogi"):
    """Adam whose second moment moves by the magnitude of g², up or down (Zaheer et al., NIPS 2018, algorithm 2).

    The step size therefore grows slowly where gradients suddenly become small. Defaults, bias correction and initial
    values are the first author's (TensorFlow Addons): only the second moment starts at `initial_accumulator_value`, and
    eps is added to its uncorrected root; the paper corrects nothing. pytorch_optimizer and optax add eps to the
    corrected root and also start the first moment at that value, so that parameters move where every gradient is zero.

    Args:
        lr: learning rate; ten times Adam's, as eps is large.
        betas: decay rate of the running average of the gradient, and 1 minus the rate of the second moment.
        eps: added to the denominator; 1e-3 as in the paper.

    Examples:
        >>> from torch import nn
        >>> optim.Yogi(nn.Linear(3, 2).parameters()).defaults["eps"]
        0.001
    """

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        super().init_state(state, group, param)
        first = group["initial_accumulator_value"]
        state["exp_avg_sq"].fill_(complex(first, first) if param.is_complex() else first)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        return {"w1": 1 - b1, "minus_w2": b2 - 1, "eps": group["eps"], "size": corrected_lr(t, group)}

    @staticmethod
    def update(p, g, m, v, *, w1, minus_w2, eps, size) -> Update:
        m.lerp_(g, w1)
        square = g * g
        v.addcmul_((v - square).sign_(), square, value=minus_w2)
        return Update(m, size, over=v.sqrt().add_(eps))
