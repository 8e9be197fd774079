"""Variants of Adam with another step from its averages: bounded, clipped, of another power or size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.hyperparameters import Flag, Hyperparameter, Number
from .common import AMSGRAD, MOMENTS, V_HAT, beta, betas, eps, lr, weight_decay
from .decay import find_decay_conflict
from .entry import native_entry

_BOUND: dict[str, Hyperparameter] = {
    "lr": lr(1e-3),
    "betas": betas(),
    "final_lr": Number(default=0.1, low=0, help="the SGD step size that both bounds converge to, at lr = peak_lr"),
    "gamma": Number(default=1e-3, low=0, open_low=True, help="convergence speed of the bounds"),
    "eps": eps(),
    "weight_decay": weight_decay(),
}
_AMSBOUND = Flag(default=False, help="divide by the maximum of all second moments so far")
_BOUND_STEPS = (
    "η = clamp(lr √(1 - β2^t) / (1 - β1^t) / (√v̂ + ε), lower, upper)",
    "lower, upper = final_lr lr / peak_lr · (1 - 1 / (γ t + 1)), the same · (1 + 1 / (γ t))",
    "p ← p - η m",
)
_ADABOUND = (MOMENTS, "v̂ = the maximum of all v so far with amsbound, else v", *_BOUND_STEPS)


def _find_bounds_conflict(values: Mapping[str, Any]) -> str | None:
    if values["lr"] <= 0:
        return f"lr: got {values['lr']:g}, but the bounds are relative to it. Type the lr of the schedule's peak"
    return find_decay_conflict(values)


ADAM_STEPS = (
    native_entry(
        "adabound",
        "AdaBound",
        summary="Adam whose step sizes are bounded, ever closer to those of SGD.",
        paper="arXiv:1902.09843",
        equations=_ADABOUND,
        hyperparameters={**_BOUND, "amsbound": _AMSBOUND},
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsbound"},
        conflict=_find_bounds_conflict,
    ),
    native_entry(
        "adaboundw",
        "AdaBoundW",
        summary="AdaBound with weight decay decoupled from the gradient and from the lr.",
        paper="arXiv:1902.09843; arXiv:1711.05101",
        equations=_ADABOUND,
        hyperparameters={**_BOUND, "amsbound": _AMSBOUND},
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsbound"},
        conflict=_find_bounds_conflict,
        decay="absolute",
    ),
    native_entry(
        "amsbound",
        "AMSBound",
        summary="AdaBound that divides by the largest second moment so far.",
        paper="arXiv:1902.09843",
        equations=(MOMENTS, "v̂ ← max(v̂, v)", *_BOUND_STEPS),
        hyperparameters=_BOUND,
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": ""},
        conflict=_find_bounds_conflict,
    ),
    native_entry(
        "adamod",
        "AdaMod",
        summary="Adam whose step sizes are bounded by their own running average, which acts as a warm-up.",
        paper="arXiv:1910.12249",
        equations=(
            MOMENTS,
            "η = lr √(1 - β2^t) / (1 - β1^t) / (√v + ε)",
            "s ← β3 s + (1 - β3) η",
            "p ← p - min(η, s) m",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "beta3": beta(0.999, "decay rate of the running average of step sizes"),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "exp_avg_lr": ""},
        decay="decoupled",
    ),
    native_entry(
        "stable_adamw",
        "StableAdamW",
        summary="AdamW with update clipping per tensor, for when the second moment lags behind.",
        paper="arXiv:2304.13013",
        equations=(
            "β̂ = β (1 - β^(t - 1)) / (1 - β^t)",
            "m ← β̂1 m + (1 - β̂1) g;  v ← β̂2 v + (1 - β̂2) g²",
            "r = max(1, rms(g / max(√v, ε)))    (of each tensor)",
            "p ← p - lr / r · m / (√v + ε)",
            "weight_decay_mode decoupled and corrected: with lr / r in place of lr, like the step",
        ),
        hyperparameters={
            "lr": lr(2e-3),
            "betas": betas(0.9, 0.99),
            "eps": eps(),
            "weight_decay": weight_decay(0.2),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    native_entry(
        "diffgrad",
        "DiffGrad",
        summary="Adam with smaller steps where the gradient hardly changes.",
        paper="arXiv:1909.11015",
        equations=(
            MOMENTS,
            "ξ = sigmoid(|g - g'|);  g' ← g    (g' the previous gradient, initially 0)",
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · ξ m / (√v + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous_grad": ""},
    ),
    native_entry(
        "padam",
        "Padam",
        summary="AMSGrad that divides by a smaller power of the second moment: between Adam and SGD.",
        paper="arXiv:1806.06763",
        equations=(
            MOMENTS,
            V_HAT,
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · m / (√v̂ + ε)^(2 partial)",
        ),
        hyperparameters={
            "lr": lr(0.1),
            "betas": betas(),
            "partial": Number(default=0.25, low=0, high=0.5, help="power of the second moment; 0.5: amsgrad, 0: sgd"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": replace(AMSGRAD, default=True),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"},
    ),
    native_entry(
        "adamp",
        "AdamP",
        summary="Adam that does not grow scale-invariant weights, such as those before a normalization.",
        paper="arXiv:2006.08217",
        equations=(
            MOMENTS,
            "d = m / (√v / √(1 - β2^t) + ε);  with nesterov β1 m + (1 - β1) g in place of m",
            "where |cos(g, p)| < δ / √n in all rows, or else in the whole tensor, of n elements:",
            "    d ← d - (p·d) p / ‖p‖² there, and λ is multiplied by wd_ratio",
            "p ← p - lr / (1 - β1^t) · d",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "delta": Number(default=0.1, low=0, help="weights count as scale-invariant where |cos(g, p)| < delta / √n"),
            "wd_ratio": Number(
                default=0.1, low=0, high=1, help="factor of the decay of scale-invariant weights; not with l2, l1"
            ),
            "nesterov": Flag(default=False, help="Nesterov momentum"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    native_entry(
        "prodigy",
        "Prodigy",
        summary="Adam that estimates its step size d by itself, one for all groups; lr is a factor on it.",
        paper="arXiv:2306.06101",
        equations=(
            "m ← β1 m + (1 - β1) d g;  v ← β2 v + (1 - β2) d² g²",
            "p ← p - lr d m / (√v + d ε);  with bias_correction lr √(1 - β2^t) / (1 - β1^t) in place of lr",
            "r ← β3 r + lr d²/d0 ⟨g, p0 - p⟩;  s ← β3 s + lr d²/d0 g, with safeguard_warmup d²/d0 g",
            "d ← max(d, d_coef Σ r / Σ ‖s‖₁), summed over all groups, but at most growth_rate d",
            "weight_decay_mode decoupled and corrected: with lr d in place of lr, like the step",
        ),
        hyperparameters={
            "lr": lr(1.0, "factor on d, which all groups share; leave it at 1, with a schedule from 1 to 0"),
            "betas": betas(),
            "beta3": replace(
                beta(0.0, "decay rate of the averages that d is estimated from; null: √β2"), default=None, optional=True
            ),
            "eps": eps(help="added to the denominator, times d"),
            "weight_decay": weight_decay(),
            "d0": Number(
                default=1e-6,
                low=0,
                open_low=True,
                per_group=False,
                help="initial d; must be smaller than the right one",
            ),
            "d_coef": Number(
                default=1.0,
                low=0,
                open_low=True,
                per_group=False,
                help="factor on the estimate of d; change it rather than lr",
            ),
            "growth_rate": Number(
                default=None,
                low=1,
                open_low=True,
                optional=True,
                per_group=False,
                help="maximum factor by which d grows in a step, except for its first growth; null: unlimited",
            ),
            "bias_correction": Flag(default=False, help="Adam's bias correction"),
            "safeguard_warmup": Flag(
                default=False, help="leave lr out of the denominator of the estimate, if a warm-up makes d too large"
            ),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "s": "", "p0": "", "r": ""},
        reduced=frozenset({"r"}),
        decay="decoupled",
    ),
)
