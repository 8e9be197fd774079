"""Other forms of momentum: adaptive, of points, over the Hessian, with reduced variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Number, Numbers
from .common import beta, betas, eps, lr, weight_decay
from .entry import native_entry


def _find_madgrad_conflict(values: Mapping[str, Any]) -> str | None:
    if values.get("schedule_free"):
        return "schedule_free: MADGRAD's parameter is itself an average of points, with its own weights. Remove it"
    return None


MOMENTUM = (
    native_entry(
        "adai",
        "Adai",
        summary="SGD with adaptive momentum instead of an adaptive lr: stronger where gradients are small.",
        paper="arXiv:2006.15815",
        equations=(
            "v ← β2 v + (1 - β2) g²;  v̂ = v / (1 - β2^t)",
            "β1 = clamp(1 - β0 v̂ / mean(v̂), 0, 1 - ε)    (mean over all parameters of the step)",
            "m ← β1 m + (1 - β1) g;  c ← β1 c + 1 - β1",
            "p ← p - lr m / c",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": Numbers(
                default=(0.1, 0.99),
                items=(Number(default=0.1, low=0), beta(0.99)),
                help="strength of the adaptation β0, and decay rate of the running average of the squared gradient",
            ),
            "eps": Number(
                default=1e-3, low=0, high=1, open_low=True, help="the maximum of every momentum β1 is 1 - eps"
            ),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "bias_correction1": ""},
    ),
    native_entry(
        "madgrad",
        "MADGRAD",
        summary="Dual averaging with a cube root of the second moment; its momentum is an average of points.",
        paper="arXiv:2101.11075",
        equations=(
            "w = (lr + ε) √t, 0 where lr = 0",
            "s ← s + w g;  v ← v + w g²",
            "z = x0 - s / (v^(1/3) + ε), x0 where v = ε = 0    (x0 = p before its first step)",
            "p ← momentum p + (1 - momentum) z",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "momentum": beta(0.9, "weight of the parameter in the average of points; 0: no buffer x0"),
            "weight_decay": weight_decay(),
            "eps": eps(1e-6, "added to the cube root, and to lr"),
        },
        buffers={"grad_sum_sq": "", "s": "", "x0": "momentum"},
        own_conflict=_find_madgrad_conflict,
    ),
    native_entry(
        "sophia_g",
        "SophiaG",
        summary="Momentum over an estimate of the Hessian's diagonal, clipped to lr.",
        paper="arXiv:2305.14342",
        equations=(
            "m ← β1 m + (1 - β1) g",
            "p ← p - lr clamp(m / (ρ h + ε), -1, 1)",
            "update_hessian(B), g of the loss with sampled labels:  h ← β2 h + (1 - β2) B g²",
            "    (with Lightning, the callback SophiaHessian calls it)",
        ),
        hyperparameters={
            "lr": lr(1e-4),
            "betas": betas(
                0.965, 0.99, "decay rates of the running averages of the gradient and of the Hessian's estimates"
            ),
            "rho": Number(default=0.04, low=0, help="scale of the Hessian: a step is clipped where |m| > ρ h"),
            "eps": eps(1e-15),
            "weight_decay": weight_decay(0.1),
        },
        buffers={"exp_avg": "", "hessian": ""},
        decay="decoupled",
    ),
    native_entry(
        "storm",
        "STORM",
        summary="Momentum with variance reduction: two evaluations a step, of the same batch.",
        paper="arXiv:1905.10018",
        equations=(
            "a = min(1, c η²);  s ← s + g_t²;  η = lr / (w + s)^(1/3)",
            "d ← g_t + (1 - a) (d - ∇f_t(p_{t-1})), g_t = ∇f_t(p_t), initially d = g_t",
            "p ← p - η d",
        ),
        hyperparameters={
            "lr": lr(1.0, "learning rate, k in the paper; with a schedule, its peak"),
            "w": Number(default=10.0, low=0, open_low=True, help="initial value of the sum of squares"),
            "c": Number(default=100.0, low=0, help="how fast momentum is forgotten: a = c η², at most 1"),
            "weight_decay": weight_decay(),
        },
        buffers={"previous": "", "gradient": "", "sum": "", "estimate": ""},
        evaluations=2,
    ),
)
