"""Variants of Adam with other running averages: of the gradient, of its square, or of more quantities."""

from __future__ import annotations

from ..core.hyperparameters import Flag, Number, Numbers
from .common import AMSGRAD, DEGENERATE_TO_SGD, MOMENTS, OPTIMIZED_UPDATE, beta, betas, eps, lr, weight_decay
from .entry import native_entry


def _three_betas(defaults: tuple[float, float, float], help: str) -> Numbers:
    return Numbers(default=defaults, items=tuple(map(beta, defaults)), help=help)


def _warmup(what: str) -> Number:
    return Number(default=None, low=1, integer=True, optional=True, help=f"steps over which {what}; null: no warm-up")


ADAM_AVERAGES = (
    native_entry(
        "amsgrad",
        "AMSGrad",
        summary="Adam that divides by the largest second moment so far, so that step sizes never grow.",
        paper="arXiv:1904.09237",
        equations=(
            MOMENTS,
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
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": ""},
        first_moment="exp_avg",
    ),
    native_entry(
        "nadamw",
        "NAdamW",
        summary="NAdam with decoupled weight decay.",
        paper="Dozat 2016; arXiv:1711.05101",
        equations=(
            MOMENTS,
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
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    native_entry(
        "adabelief",
        "AdaBelief",
        summary="Adam scaled by how far gradients deviate from their running average.",
        paper="arXiv:2010.07468",
        equations=(
            "m ← β1 m + (1 - β1) g;  s ← β2 s + (1 - β2) (g - m)² + ε",
            "ŝ = the maximum of all s so far with amsgrad, else s",
            "rectify, ρ >= 5:  p ← p - lr r √(1 - β2^t) / (1 - β1^t) · m / (√ŝ + ε), with ρ and r as in radam",
            "rectify, ρ < 5:   p ← p - lr / (1 - β1^t) · m    (nothing with degenerate_to_sgd: false)",
            "otherwise:        p ← p - lr / (1 - β1^t) · m / (√ŝ / √(1 - β2^t) + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(1e-16, "added to the variance s at every step, and to the denominator"),
            "weight_decay": weight_decay(),
            "amsgrad": AMSGRAD,
            "rectify": Flag(default=True, help="rectify the variance as radam does"),
            "degenerate_to_sgd": DEGENERATE_TO_SGD,
        },
        buffers={"exp_avg": "", "exp_avg_var": "", "max_exp_avg_var": "amsgrad"},
        decay="decoupled",
    ),
    native_entry(
        "yogi",
        "Yogi",
        summary="Adam whose second moment moves by the size of the squared gradient, up or down.",
        paper="Zaheer et al. 2018, NIPS",
        equations=(
            "m ← β1 m + (1 - β1) g;  v ← v - (1 - β2) sign(v - g²) g²    (v from initial_accumulator_value)",
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · m / (√v + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "betas": betas(),
            "eps": eps(1e-3),
            "weight_decay": weight_decay(),
            "initial_accumulator_value": Number(default=1e-6, low=0, help="initial value of the second moment"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    native_entry(
        "adam_mini",
        "AdamMini",
        summary="Adam with one second moment per block of a tensor: half of Adam's state.",
        paper="arXiv:2406.16793",
        equations=(
            "m ← β1 m + (1 - β1) g;  for each block  v ← β2 v + (1 - β2) mean(g²)",
            "p ← p - lr / (1 - β1^t) · m / (√v / √(1 - β2^t) + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "num_blocks": Number(
                default=1,
                low=1,
                integer=True,
                optional=True,
                help="blocks of equal size per tensor, along its first dimension; null: its rows",
            ),
        },
        buffers={"exp_avg": "", "block_sq_avg": ""},
        reduced=frozenset({"block_sq_avg"}),
        decay="decoupled",
    ),
    native_entry(
        "laprop",
        "LaProp",
        summary="Momentum of Adam's normalized gradients, which decouples β1 from β2.",
        paper="arXiv:2002.04839",
        equations=(
            "v ← β2 v + (1 - β2) g²",
            "m ← β1 m + (1 - β1) g / (√(v / (1 - β2^t)) + ε)",
            "p ← p - lr / (1 - β1^t) · m",
        ),
        hyperparameters={
            "lr": lr(4e-4),
            "betas": betas(),
            "eps": eps(1e-15),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    native_entry(
        "adopt",
        "ADOPT",
        summary="Adam that converges with any β2: each gradient is divided by the previous second moment.",
        paper="arXiv:2411.02853",
        equations=(
            "t = 1:  v ← g², and no step",
            "m ← β1 m + (1 - β1) clamp(g / max(√v, ε), ±(t - 1)^(1/4))    (no clamp with clip: false)",
            "p ← p - lr m;  v ← β2 v + (1 - β2) g²",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(0.9, 0.9999),
            "eps": eps(1e-6, "minimum of the denominator"),
            "weight_decay": weight_decay(),
            "clip": Flag(default=True, help="clip each normalized gradient to ±(t - 1)^(1/4)"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    native_entry(
        "qhadam",
        "QHAdam",
        summary="Adam that interpolates between its moments and the current gradient.",
        paper="arXiv:1810.06801",
        equations=(
            MOMENTS,
            "m̂ = (1 - ν1) g + ν1 m / (1 - β1^t);  v̂ = (1 - ν2) g² + ν2 v / (1 - β2^t)",
            "p ← p - lr m̂ / (√v̂ + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "nus": Numbers(
                default=(1.0, 1.0),
                items=(Number(default=1.0, low=0, high=1), Number(default=1.0, low=0, high=1)),
                help="weights of the two averages against the current gradient and its square; [1, 1] is adam",
            ),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    native_entry(
        "adan",
        "Adan",
        summary="Adam with Nesterov momentum from differences of consecutive gradients.",
        paper="arXiv:2208.06677",
        equations=(
            "δ = g - g', initially 0;  g' ← g    (g' the previous gradient)",
            "m ← β1 m + (1 - β1) g;  d ← β2 d + (1 - β2) δ;  n ← β3 n + (1 - β3) (g + β2 δ)²",
            "p ← p - lr (m / (1 - β1^t) + β2 d / (1 - β2^t)) / (√(n / (1 - β3^t)) + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": _three_betas(
                (0.98, 0.92, 0.99), "decay rates of the running averages of the gradient, its difference, their square"
            ),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_diff": "", "exp_avg_sq": "", "previous_grad": ""},
        decay="decoupled",
    ),
    native_entry(
        "ademamix",
        "AdEMAMix",
        summary="AdamW with a second, much slower momentum.",
        paper="arXiv:2409.03137",
        equations=(
            f"{MOMENTS};  s ← β3 s + (1 - β3) g",
            "p ← p - lr (m / (1 - β1^t) + α s) / (√(v / (1 - β2^t)) + ε)",
            "alpha_warmup:  α grows linearly from 0;  beta3_warmup:  the half-life log 2 / -log β3 does, from β1's",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": _three_betas(
                (0.9, 0.999, 0.9999),
                "decay rates of the averages of the gradient and its square, and of the slow average",
            ),
            "alpha": Number(default=2.0, low=0, help="weight of the slow average"),
            "alpha_warmup": _warmup("alpha grows from 0"),
            "beta3_warmup": _warmup("the half-life of the slow average grows from that of the fast one"),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_slow": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    native_entry(
        "mars",
        "MARS",
        summary="AdamW on gradients with reduced variance, corrected by the previous gradient.",
        paper="arXiv:2411.10438",
        equations=(
            "c = g + γ β1 / (1 - β1) (g - g');  g' ← g    (g' the previous gradient, initially 0)",
            "c ← c / max(1, ‖c‖)    (the norm of each tensor)",
            "m ← β1 m + (1 - β1) c;  v ← β2 v + (1 - β2) c²",
            "p ← p - lr / (1 - β1^t) · m / (√(v / (1 - β2^t)) + ε)",
        ),
        hyperparameters={
            "lr": lr(3e-3),
            "betas": betas(0.95, 0.99),
            "gamma": Number(default=0.025, low=0, help="strength of the variance reduction; 0: none"),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous_grad": ""},
        decay="decoupled",
    ),
)
