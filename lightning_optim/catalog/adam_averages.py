"""Adam's relatives that keep other averages: of the gradient, of its square, or of more than these."""

from __future__ import annotations

from ..core.hyperparameters import Flag, Number, Numbers
from .common import AMSGRAD, DEGENERATE_TO_SGD, MOMENTS, OPTIMIZED_UPDATE, beta, betas, eps, lr, weight_decay
from .entry import ours


def _three_betas(defaults: tuple[float, float, float], help: str) -> Numbers:
    return Numbers(default=defaults, items=tuple(map(beta, defaults)), help=help)


def _warmup(of: str) -> Number:
    return Number(default=None, low=1, integer=True, optional=True, help=f"steps over which {of}; null: no warm-up")


ADAM_AVERAGES = (
    ours(
        "amsgrad",
        "AMSGrad",
        summary="Adam that divides by the largest second moment so far, so its lr never grows.",
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
    ),
    ours(
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
    ours(
        "adabelief",
        "AdaBelief",
        summary="Adam scaled by how far gradients stray from their running average.",
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
        },
        buffers={"exp_avg": "", "exp_avg_var": "", "max_exp_avg_var": "amsgrad"},
        decay="decoupled",
    ),
    ours(
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
            "initial_accumulator_value": Number(default=1e-6, low=0, help="start of the second moment"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    ours(
        "adam_mini",
        "AdamMini",
        summary="Adam with one second moment for a block of each tensor: half of Adam's state.",
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
                default=1, low=1, integer=True, optional=True, help="second moments of a tensor; null: one a row"
            ),
        },
        buffers={"exp_avg": "", "block_sq_avg": ""},
        reduced=frozenset({"block_sq_avg"}),
        decay="decoupled",
    ),
    ours(
        "laprop",
        "LaProp",
        summary="The momentum of Adam's normalised gradients: β1 and β2 may be chosen apart.",
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
    ours(
        "adopt",
        "ADOPT",
        summary="Adam that converges with any β2: each gradient over the second moment before it.",
        paper="arXiv:2411.02853",
        equations=(
            "t = 1:  v ← g², and no step",
            "m ← β1 m + (1 - β1) clamp(g / max(√v, ε), ±(t - 1)^(1/4))    (no clamp with clip: false)",
            "p ← p - lr m;  v ← β2 v + (1 - β2) g²",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(0.9, 0.9999),
            "eps": eps(1e-6, "least denominator"),
            "weight_decay": weight_decay(),
            "clip": Flag(default=True, help="bound each normalised gradient by (t - 1)^(1/4)"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    ours(
        "qhadam",
        "QHAdam",
        summary="Adam between its moments and the gradient itself.",
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
                help="shares of the averages against the present gradient and its square; [1, 1] is adam",
            ),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
    ),
    ours(
        "adan",
        "Adan",
        summary="Adam with Nesterov's momentum, from differences of gradients.",
        paper="arXiv:2208.06677",
        equations=(
            "δ = g - g', 0 at first;  g' ← g    (g' the gradient of the step before)",
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
    ours(
        "ademamix",
        "AdEMAMix",
        summary="AdamW with a second, far longer momentum beside the first.",
        paper="arXiv:2409.03137",
        equations=(
            f"{MOMENTS};  s ← β3 s + (1 - β3) g",
            "p ← p - lr (m / (1 - β1^t) + α s) / (√(v / (1 - β2^t)) + ε)",
            "alpha_warmup:  α t / alpha_warmup until then;  beta3_warmup:  log 2 / -log β3 grows alike, from β1's",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": _three_betas(
                (0.9, 0.999, 0.9999), "decay rates of the running averages of the gradient, its square, the slow one"
            ),
            "alpha": Number(default=2.0, low=0, help="weight of the slow running average"),
            "alpha_warmup": _warmup("alpha grows from 0"),
            "beta3_warmup": _warmup("the slow average's half-life grows from the fast one's"),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_slow": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    ours(
        "mars",
        "MARS",
        summary="AdamW on gradients corrected by those of the step before, of less variance.",
        paper="arXiv:2411.10438",
        equations=(
            "c = g + γ β1 / (1 - β1) (g - g');  g' ← g    (g' the gradient of the step before, 0 at first)",
            "c ← c / max(1, ‖c‖)    (the norm of each tensor)",
            "m ← β1 m + (1 - β1) c;  v ← β2 v + (1 - β2) c²",
            "p ← p - lr / (1 - β1^t) · m / (√(v / (1 - β2^t)) + ε)",
        ),
        hyperparameters={
            "lr": lr(3e-3),
            "betas": betas(0.95, 0.99),
            "gamma": Number(default=0.025, low=0, help="how much of the variance is corrected; 0: none"),
            "eps": eps(),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous_grad": ""},
        decay="decoupled",
    ),
)
