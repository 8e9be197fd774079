"""RAdam, and its rectification of the variance, which AdaBelief uses too."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import advance_m, moments


def rectification(t: float, b2: float) -> tuple[float, float]:
    """ρ_t, the length of the approximated simple moving average, and r_t, the variance rectification.

    r_t is defined where ρ_t > 4 (Liu et al., arXiv:1908.03265, algorithm 2), and 0 elsewhere.
    """
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= 4:
        return rho, 0.0
    return rho, ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5


def rectified_lr(optimizer: Any, t: float, group: ParamGroup) -> float:
    """lr times what multiplies a step with `schedule_free`: 0 in silent steps."""
    del optimizer
    lr: float = group["lr"]
    return lr * _step_factor(t, group)


def _step_factor(t: float, group: ParamGroup) -> float:
    rho, rect = rectification(t, group["betas"][1])
    return rect if rho > 4 else float(group["degenerate_to_sgd"])


def _decay_factor(t: float, group: ParamGroup) -> float:
    is_by_lr = group["weight_decay_mode"] in ("decoupled", "corrected")
    return _step_factor(t, group) if group["schedule_free"] and is_by_lr else 1.0


class RAdam(Member, name="radam"):
    """Adam that rectifies its variance (Liu et al., arXiv:1908.03265), bitwise the loop of `torch.optim.RAdam`.

    The step is adaptive once ρ_t > 5, as in torch. The paper's algorithm says > 4; its authors' code, labml_nn, optax,
    pytorch_optimizer and AdaBelief's authors say >= 5, which differs where ρ_t is exactly 5. With `schedule_free` it is
    adaptive once ρ_t > 4, as in its authors' RAdam; until then, `degenerate_to_sgd: false` makes steps silent. There
    `decoupled` and `corrected` decay are proportional to the rectified lr.

    Args:
        optimized_update: add eps to the root of the uncorrected second moment, as torch does.

    Examples:
        >>> from torch import nn
        >>> optim.RAdam(nn.Linear(3, 2).parameters(), lr=1e-3).defaults["degenerate_to_sgd"]
        True
    """

    averaging_lr = rectified_lr

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), (rho, rect) = group["betas"], rectification(t, group["betas"][1])
        adapt, root = rho > (4 if group["schedule_free"] else 5), (1 - b2**t) ** 0.5
        inner, outer = (1.0, root) if group["optimized_update"] else (root, 1.0)
        step = {"bias1": 1 - b1**t, "lr": group["lr"], "rect": rect, "inner": inner, "outer": outer, "adapt": adapt}
        factors = {"size": float(adapt or group["degenerate_to_sgd"]), "decay": _decay_factor(t, group)}
        return {**moments(group), **step, **factors, "has_m": self.has_first_moment(group)}

    @staticmethod
    def update(p, g, *buffers, w1, b2, w2, eps, bias1, lr, rect, inner, outer, size, adapt, decay, has_m) -> Update:
        # buffers: m, unless schedule_free averages in its place; v; with amsgrad its maximum.
        m, v, v_max = advance_m(g, buffers, w1, has_m)
        v.mul_(b2).addcmul_(g, g, value=w2)
        v_hat = v if v_max is None else v_max.clamp_min_(v)
        step = (m / bias1).mul_(lr)
        if adapt:
            # In torch's order of multiplications.
            step.mul_((v_hat.sqrt() / inner).add_(eps).reciprocal_().mul_(outer)).mul_(rect)
        return Update(step, size, decay=decay)
