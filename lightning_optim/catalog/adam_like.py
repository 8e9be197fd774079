"""Adam's other relatives: they run by our class."""

from __future__ import annotations

from dataclasses import replace

from ..hyperparameters import Flag, Number, Numbers
from .common import AMSGRAD, beta, betas, eps, lr, options, weight_decay
from .decay import decay_conflict
from .info import OptimizerInfo

_MOMENTS = "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²"


def _three_betas(defaults: tuple[float, float, float], help: str) -> Numbers:
    return Numbers(default=defaults, items=tuple(map(beta, defaults)), help=help)


def _warmup(of: str) -> Number:
    return Number(default=None, low=1, integer=True, optional=True, help=f"steps over which {of}; null: no warm-up")


ADAM_LIKE = (
    OptimizerInfo(
        name="yogi",
        summary="Adam whose second moment moves by the size of the squared gradient, up or down.",
        path="lightning_optim.optim:Yogi",
        own="lightning_optim.optim:Yogi",
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
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="laprop",
        summary="The momentum of Adam's normalised gradients: β1 and β2 may be chosen apart.",
        path="lightning_optim.optim:LaProp",
        own="lightning_optim.optim:LaProp",
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
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="qhadam",
        summary="Adam between its moments and the gradient itself.",
        path="lightning_optim.optim:QHAdam",
        own="lightning_optim.optim:QHAdam",
        paper="arXiv:1810.06801",
        equations=(
            _MOMENTS,
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
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="diffgrad",
        summary="Adam with friction where the gradient hardly changes.",
        path="lightning_optim.optim:DiffGrad",
        own="lightning_optim.optim:DiffGrad",
        paper="arXiv:1909.11015",
        equations=(
            _MOMENTS,
            "ξ = sigmoid(|g - g'|);  g' ← g    (g' the gradient of the step before, 0 at first)",
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · ξ m / (√v + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous_grad": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="adamod",
        summary="Adam whose step sizes are bounded by their own running average, a warm-up by itself.",
        path="lightning_optim.optim:AdaMod",
        own="lightning_optim.optim:AdaMod",
        paper="arXiv:1910.12249",
        equations=(
            _MOMENTS,
            "η = lr √(1 - β2^t) / (1 - β1^t) / (√v + ε)",
            "s ← β3 s + (1 - β3) η",
            "p ← p - min(η, s) m",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "beta3": replace(beta(0.999), help="decay rate of the running average of step sizes"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "exp_avg_lr": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="padam",
        summary="AMSGrad that divides by a smaller power of the second moment: between Adam and SGD.",
        path="lightning_optim.optim:Padam",
        own="lightning_optim.optim:Padam",
        paper="arXiv:1806.06763",
        equations=(
            _MOMENTS,
            "v̂ = the maximum of all v so far with amsgrad, else v",
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · m / (√v̂ + ε)^(2 partial)",
        ),
        hyperparameters={
            "lr": lr(0.1),
            "betas": betas(),
            "partial": Number(default=0.25, low=0, high=0.5, help="power of the second moment: 0.5 amsgrad, 0 sgd"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": replace(AMSGRAD, default=True),
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="adai",
        summary="SGD whose momentum, not its lr, adapts: stronger where gradients are small.",
        path="lightning_optim.optim:Adai",
        own="lightning_optim.optim:Adai",
        paper="arXiv:2006.15815",
        equations=(
            "v ← β2 v + (1 - β2) g²",
            "β1 = clamp(1 - β0 v / mean(v), 0, 1 - ε)    (the mean of each tensor)",
            "m ← β1 m + (1 - β1) g;  c ← β1 c + 1 - β1",
            "p ← p - lr m / c",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": Numbers(
                default=(0.1, 0.99),
                items=(Number(default=0.1, low=0), beta(0.99)),
                help="strength of the adaptation, and decay rate of the running average of the squared gradient",
            ),
            "eps": Number(default=1e-3, low=0, high=1, open_low=True, help="no momentum is above 1 - eps"),
            "weight_decay": weight_decay(),
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "bias_correction1": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="adan",
        summary="Adam with Nesterov's momentum, from differences of gradients.",
        path="lightning_optim.optim:Adan",
        own="lightning_optim.optim:Adan",
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
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_diff": "", "exp_avg_sq": "", "previous_grad": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="ademamix",
        summary="AdamW with a second, far longer momentum beside the first.",
        path="lightning_optim.optim:AdEMAMix",
        own="lightning_optim.optim:AdEMAMix",
        paper="arXiv:2409.03137",
        equations=(
            f"{_MOMENTS};  s ← β3 s + (1 - β3) g",
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
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_slow": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="adopt",
        summary="Adam that converges with any β2: each gradient over the second moment before it.",
        path="lightning_optim.optim:ADOPT",
        own="lightning_optim.optim:ADOPT",
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
            **options("l2"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
    ),
    OptimizerInfo(
        name="mars",
        summary="AdamW on gradients corrected by those of the step before, of less variance.",
        path="lightning_optim.optim:MARS",
        own="lightning_optim.optim:MARS",
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
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous_grad": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="stable_adamw",
        summary="AdamW whose update is clipped in each tensor where the second moment has fallen behind.",
        path="lightning_optim.optim:StableAdamW",
        own="lightning_optim.optim:StableAdamW",
        paper="arXiv:2304.13013",
        equations=(
            "β̂ = β (1 - β^(t - 1)) / (1 - β^t)",
            "m ← β̂1 m + (1 - β̂1) g;  v ← β̂2 v + (1 - β̂2) g²",
            "r = max(1, rms(g / max(√v, ε)))    (of each tensor)",
            "p ← p - lr / r · m / (√v + ε)",
        ),
        hyperparameters={
            "lr": lr(2e-3),
            "betas": betas(0.9, 0.99),
            "eps": eps(),
            "weight_decay": weight_decay(0.2),
            **options("decoupled"),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        conflict=decay_conflict,
        decay="decoupled",
    ),
    OptimizerInfo(
        name="madgrad",
        summary="Dual averaging with a cube root, and momentum as an average of points.",
        path="lightning_optim.optim:MADGRAD",
        own="lightning_optim.optim:MADGRAD",
        paper="arXiv:2101.11075",
        equations=(
            "w = (lr + ε) √t, 0 where lr = 0",
            "s ← s + w g;  v ← v + w g²",
            "z = x0 - s / (v^(1/3) + ε)    (x0 = p before its first step)",
            "p ← momentum p + (1 - momentum) z",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "momentum": replace(beta(0.9), help="share of the parameter in the average of points"),
            "weight_decay": weight_decay(),
            "eps": replace(eps(1e-6, "added to the cube root, and to the lr"), open_low=True),
            **options("l2"),
        },
        buffers={"grad_sum_sq": "", "s": "", "x0": "momentum"},
        conflict=decay_conflict,
    ),
)
