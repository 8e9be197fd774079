"""Optimizers that torch does not have: they run by our class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..hyperparameters import Flag, Hyperparameter, Number
from .common import AMSGRAD, DEGENERATE_TO_SGD, OPTIMIZED_UPDATE, betas, eps, lr, options, weight_decay
from .decay import decay_conflict
from .info import OptimizerInfo

_MOMENTS = "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²"
_BOUND: dict[str, Hyperparameter] = {
    "lr": lr(1e-3),
    "betas": betas(),
    "final_lr": Number(default=0.1, low=0, help="the lr of SGD that both bounds tend to, at lr = peak_lr"),
    "gamma": Number(default=1e-3, low=0, open_low=True, help="how fast the bounds close"),
    "eps": eps(),
    "weight_decay": weight_decay(),
}
_AMSBOUND = Flag(default=False, help="use the maximum of all second moments so far")
_V_HAT = "v̂ = the maximum of all v so far with amsbound, else v"
_BOUND_STEPS = (
    "η = clamp(lr √(1 - β2^t) / (1 - β1^t) / (√v̂ + ε), lower, upper)",
    "lower, upper = final_lr lr / peak_lr · (1 - 1 / (γ t + 1)), the same · (1 + 1 / (γ t))",
    "p ← p - η m",
)


def _bounds_conflict(values: Mapping[str, Any]) -> str | None:
    if values["lr"] <= 0:
        return f"lr: {values['lr']:g}, but the bounds are in proportion to it. Type the lr of the schedule's peak"
    return decay_conflict(values)


_ADABOUND = OptimizerInfo(
    name="adabound",
    summary="Adam whose steps are bounded ever closer to those of SGD.",
    path="lightning_optim.optim:AdaBound",
    own="lightning_optim.optim:AdaBound",
    paper="arXiv:1902.09843",
    equations=(_MOMENTS, _V_HAT, *_BOUND_STEPS),
    hyperparameters={
        **_BOUND,
        "amsbound": _AMSBOUND,
        **options("l2"),
    },
    buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsbound"},
    conflict=_bounds_conflict,
)

OURS = (
    OptimizerInfo(
        name="amsgrad",
        summary="Adam that divides by the largest second moment so far, so its lr never grows.",
        path="lightning_optim.optim:AMSGrad",
        own="lightning_optim.optim:AMSGrad",
        paper="arXiv:1904.09237",
        equations=(
            _MOMENTS,
            "v̂ ← max(v̂, v)",
            "p ← p - lr / (1 - β1^t) · m / (√v̂ / √(1 - β2^t) + ε)",
            "with optimized_update:  p ← p - lr √(1 - β2^t) / (1 - β1^t) · m / (√v̂ + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "optimized_update": OPTIMIZED_UPDATE,
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="nadamw",
        summary="NAdam with decoupled weight decay.",
        path="lightning_optim.optim:NAdamW",
        own="lightning_optim.optim:NAdamW",
        paper="Dozat 2016; arXiv:1711.05101",
        equations=(
            _MOMENTS,
            "μ_t = β1 (1 - 0.96^(t momentum_decay) / 2);  M_t = μ_1 ... μ_t",
            "d = √(v / (1 - β2^t)) + ε",
            "p ← p - lr (1 - μ_t) / (1 - M_t) · g / d - lr μ_{t+1} / (1 - M_{t+1}) · m / d",
        ),
        hyperparameters={
            "lr": lr(2e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(1e-2),
            "momentum_decay": Number(default=4e-3, low=0, help="decay of the momentum schedule"),
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="adabelief",
        summary="Adam scaled by how far gradients stray from their running average.",
        path="lightning_optim.optim:AdaBelief",
        own="lightning_optim.optim:AdaBelief",
        paper="arXiv:2010.07468",
        equations=(
            "m ← β1 m + (1 - β1) g;  s ← β2 s + (1 - β2) (g - m)² + ε",
            "ŝ = the maximum of all s so far with amsgrad, else s",
            "rectify, ρ >= 5:  p ← p - lr r √(1 - β2^t) / (1 - β1^t) · m / (√ŝ + ε), with ρ and r as radam's",
            "rectify, ρ < 5:   p ← p - lr / (1 - β1^t) · m    (nothing with degenerate_to_sgd: false)",
            "otherwise:        p ← p - lr / (1 - β1^t) · m / (√ŝ / √(1 - β2^t) + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(1e-16, "added to s at every step, and to the denominator"),
            "weight_decay": weight_decay(),
            "amsgrad": AMSGRAD,
            "rectify": Flag(default=True, help="rectify the variance, as radam does"),
            "degenerate_to_sgd": DEGENERATE_TO_SGD,
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_var": "", "max_exp_avg_var": "amsgrad"},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    _ADABOUND,
    replace(
        _ADABOUND,
        name="adaboundw",
        summary="AdaBound with weight decay apart from the gradient and from the lr.",
        path="lightning_optim.optim:AdaBoundW",
        own="lightning_optim.optim:AdaBoundW",
        paper="arXiv:1902.09843; arXiv:1711.05101",
        hyperparameters={**_ADABOUND.hyperparameters, **options("absolute")},
        decay="absolute",
    ),
    replace(
        _ADABOUND,
        name="amsbound",
        summary="AdaBound that divides by the largest second moment so far.",
        path="lightning_optim.optim:AMSBound",
        own="lightning_optim.optim:AMSBound",
        equations=(_MOMENTS, "v̂ ← max(v̂, v)", *_BOUND_STEPS),
        hyperparameters={key: spec for key, spec in _ADABOUND.hyperparameters.items() if key != "amsbound"},
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": ""},
    ),
    OptimizerInfo(
        name="lion",
        summary="Steps by the sign of an interpolated momentum: one buffer, and equal steps for all.",
        path="lightning_optim.optim:Lion",
        own="lightning_optim.optim:Lion",
        paper="arXiv:2302.06675",
        equations=(
            "p ← p - lr sign(β1 m + (1 - β1) g)",
            "m ← β2 m + (1 - β2) g",
        ),
        hyperparameters={
            "lr": lr(1e-4),
            "betas": replace(betas(0.9, 0.99), help="weights of the momentum in the step, and in its own average"),
            "weight_decay": weight_decay(),
            **options("decoupled"),
        },
        buffers={"exp_avg": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="lamb",
        summary="Adam whose step in each tensor is in proportion to the tensor's norm; for large batches.",
        path="lightning_optim.optim:LAMB",
        own="lightning_optim.optim:LAMB",
        paper="arXiv:1904.00962",
        equations=(
            _MOMENTS,
            "r = m / (1 - β1^t) / (√(v / (1 - β2^t)) + ε)    (+ λ p with weight_decay_mode: update)",
            "p ← p - lr ‖p‖ / ‖r‖ · r    (ratio 1 where a norm is 0)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(1e-6),
            "weight_decay": weight_decay(),
            **options("update", in_rule=True),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
        decay="update",
    ),
)
