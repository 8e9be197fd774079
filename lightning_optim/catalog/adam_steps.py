"""Adam's relatives that make another step of its averages: bounded, clipped, of another power, of another size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.hyperparameters import Flag, Hyperparameter, Number
from .common import AMSGRAD, MOMENTS, V_HAT, beta, betas, eps, lr, weight_decay
from .decay import decay_conflict
from .entry import ours

_BOUND: dict[str, Hyperparameter] = {
    "lr": lr(1e-3),
    "betas": betas(),
    "final_lr": Number(default=0.1, low=0, help="the lr of SGD that both bounds tend to, at lr = peak_lr"),
    "gamma": Number(default=1e-3, low=0, open_low=True, help="how fast the bounds close"),
    "eps": eps(),
    "weight_decay": weight_decay(),
}
_AMSBOUND = Flag(default=False, help="use the maximum of all second moments so far")
_BOUND_STEPS = (
    "η = clamp(lr √(1 - β2^t) / (1 - β1^t) / (√v̂ + ε), lower, upper)",
    "lower, upper = final_lr lr / peak_lr · (1 - 1 / (γ t + 1)), the same · (1 + 1 / (γ t))",
    "p ← p - η m",
)
_ADABOUND = (MOMENTS, "v̂ = the maximum of all v so far with amsbound, else v", *_BOUND_STEPS)


def _bounds_conflict(values: Mapping[str, Any]) -> str | None:
    if values["lr"] <= 0:
        return f"lr: {values['lr']:g}, but the bounds are in proportion to it. Type the lr of the schedule's peak"
    return decay_conflict(values)


ADAM_STEPS = (
    ours(
        "adabound",
        "AdaBound",
        summary="Adam whose steps are bounded ever closer to those of SGD.",
        paper="arXiv:1902.09843",
        equations=_ADABOUND,
        hyperparameters={**_BOUND, "amsbound": _AMSBOUND},
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsbound"},
        conflict=_bounds_conflict,
    ),
    ours(
        "adaboundw",
        "AdaBoundW",
        summary="AdaBound with weight decay apart from the gradient and from the lr.",
        paper="arXiv:1902.09843; arXiv:1711.05101",
        equations=_ADABOUND,
        hyperparameters={**_BOUND, "amsbound": _AMSBOUND},
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsbound"},
        conflict=_bounds_conflict,
        decay="absolute",
    ),
    ours(
        "amsbound",
        "AMSBound",
        summary="AdaBound that divides by the largest second moment so far.",
        paper="arXiv:1902.09843",
        equations=(MOMENTS, "v̂ ← max(v̂, v)", *_BOUND_STEPS),
        hyperparameters=_BOUND,
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": ""},
        conflict=_bounds_conflict,
    ),
    ours(
        "adamod",
        "AdaMod",
        summary="Adam whose step sizes are bounded by their own running average, a warm-up by itself.",
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
    ours(
        "stable_adamw",
        "StableAdamW",
        summary="AdamW whose update is clipped in each tensor where the second moment has fallen behind.",
        paper="arXiv:2304.13013",
        equations=(
            "β̂ = β (1 - β^(t - 1)) / (1 - β^t)",
            "m ← β̂1 m + (1 - β̂1) g;  v ← β̂2 v + (1 - β̂2) g²",
            "r = max(1, rms(g / max(√v, ε)))    (of each tensor)",
            "p ← p - lr / r · m / (√v + ε)",
            "weight_decay_mode decoupled and corrected: with lr / r in place of lr, as the step",
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
    ours(
        "diffgrad",
        "DiffGrad",
        summary="Adam with friction where the gradient hardly changes.",
        paper="arXiv:1909.11015",
        equations=(
            MOMENTS,
            "ξ = sigmoid(|g - g'|);  g' ← g    (g' the gradient of the step before, 0 at first)",
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
    ours(
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
            "partial": Number(default=0.25, low=0, high=0.5, help="power of the second moment: 0.5 amsgrad, 0 sgd"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": replace(AMSGRAD, default=True),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"},
    ),
    ours(
        "adamp",
        "AdamP",
        summary="Adam that does not let weights grow whose scale does not matter.",
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
            "delta": Number(default=0.1, low=0, help="how far from right angles to its gradient a weight may be"),
            "wd_ratio": Number(default=0.1, low=0, high=1, help="part of the decay that scale-invariant weights have"),
            "nesterov": Flag(default=False, help="Nesterov's momentum"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    ours(
        "prodigy",
        "Prodigy",
        summary="Adam that finds its lr by itself: d, one for all groups, of which lr is a factor.",
        paper="arXiv:2306.06101",
        equations=(
            "m ← β1 m + (1 - β1) d g;  v ← β2 v + (1 - β2) d² g²",
            "p ← p - lr d m / (√v + d ε);  with bias_correction lr √(1 - β2^t) / (1 - β1^t) in place of lr",
            "r ← β3 r + lr d²/d0 ⟨g, p0 - p⟩;  s ← β3 s + lr d²/d0 g, with safeguard_warmup d²/d0 g",
            "d ← max(d, d_coef Σ r / Σ ‖s‖₁), summed over all groups, but at most growth_rate d",
            "weight_decay_mode decoupled and corrected: with lr d in place of lr, as the step",
        ),
        hyperparameters={
            "lr": lr(1.0, "factor on d, which all groups share; leave it at 1"),
            "betas": betas(),
            "beta3": replace(beta(0.0, "of the estimate; null: √β2"), default=None, optional=True),
            "eps": eps(help="added to the denominator, times d"),
            "weight_decay": weight_decay(),
            "d0": Number(default=1e-6, low=0, open_low=True, per_group=False, help="the first d, smaller than right"),
            "d_coef": Number(default=1.0, low=0, open_low=True, per_group=False, help="factor of the estimate of d"),
            "growth_rate": Number(
                default=None, low=1, open_low=True, optional=True, per_group=False, help="bound on d's growth in a step"
            ),
            "bias_correction": Flag(default=False, help="Adam's"),
            "safeguard_warmup": Flag(default=False, help="leave the lr out of the denominator of d's estimate"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "s": "", "p0": "", "r": ""},
        reduced=frozenset({"r"}),
        decay="decoupled",
    ),
)
