"""Optimizers that run by torch's class: there is no native one."""

from __future__ import annotations

from dataclasses import replace

from ..core.hyperparameters import Choice, Number, Numbers
from .common import MAXIMIZE, MOMENTS, betas, eps, execution_flags, lr, weight_decay
from .info import OptimizerInfo

TORCH = (
    OptimizerInfo(
        name="asgd",
        summary="SGD that also averages the iterates.",
        path="torch.optim:ASGD",
        paper="Polyak & Juditsky 1992",
        equations=(
            "η = lr / (1 + lambd lr t)^alpha",
            "p ← p (1 - lambd η) - η g",
            "ax ← ax + (p - ax) / max(1, t - t0)",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "lambd": Number(default=1e-4, low=0, help="decay term of the step size"),
            "alpha": Number(default=0.75, low=0, help="power of the step-size update"),
            "t0": Number(default=1e6, low=0, help="step at which averaging starts"),
            "weight_decay": weight_decay(),
            **execution_flags("foreach"),
            "maximize": MAXIMIZE,
            **execution_flags("differentiable", "capturable"),
        },
        buffers={"ax": ""},
    ),
    OptimizerInfo(
        name="rprop",
        summary="Resilient backpropagation: step sizes from the signs of full-batch gradients.",
        path="torch.optim:Rprop",
        paper="Riedmiller & Braun 1993",
        equations=(
            "s ← s η+ where g g' > 0, s η- where g g' < 0 (and g ← 0 there), clamped to step_sizes",
            "p ← p - s sign(g);  g' ← g",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "etas": Numbers(
                default=(0.5, 1.2),
                items=(
                    Number(default=0.5, low=0, high=1, open_low=True, open_high=True),
                    Number(default=1.2, low=1, open_low=True),
                ),
                help="factors that shrink and grow a step size",
            ),
            "step_sizes": Numbers(
                default=(1e-6, 50.0),
                items=(Number(default=1e-6, low=0), Number(default=50.0, low=0)),
                help="smallest and largest step size",
            ),
            **execution_flags("capturable", "foreach"),
            "maximize": MAXIMIZE,
            **execution_flags("differentiable"),
        },
        buffers={"prev": "", "step_size": ""},
        decay="none",
    ),
    OptimizerInfo(
        name="lbfgs",
        summary="Limited-memory BFGS; full batches, one param group.",
        path="torch.optim:LBFGS",
        paper="Liu & Nocedal 1989",
        equations=(
            "d = -H g, with H from the last history_size pairs of steps and gradient differences",
            "p ← p + lr d, or a line search along d",
        ),
        hyperparameters={
            "lr": lr(1.0),
            "max_iter": Number(default=20, low=1, integer=True, help="iterations per step"),
            "max_eval": Number(
                default=None, low=1, integer=True, optional=True, help="evaluations per step; null: 1.25 max_iter"
            ),
            "tolerance_grad": Number(default=1e-7, low=0, help="stop when the largest gradient entry is below it"),
            "tolerance_change": Number(default=1e-9, low=0, help="stop when the loss or the parameters change by less"),
            "history_size": Number(default=100, low=1, integer=True, help="number of past updates stored"),
            "line_search_fn": Choice(default=None, options=("strong_wolfe",), optional=True, help="line search"),
            "maximize": replace(MAXIMIZE, since="2.14", help=f"{MAXIMIZE.help}; torch >= 2.14"),
        },
        buffers={},
        decay="none",
        single_group=True,
    ),
    OptimizerInfo(
        name="sparse_adam",
        summary="Adam for sparse gradients: only the moments of rows with a gradient are updated.",
        path="torch.optim:SparseAdam",
        paper="arXiv:1412.6980",
        equations=(
            "only rows with a gradient:",
            MOMENTS,
            "p ← p - lr √(1 - β2^t) / (1 - β1^t) · m / (√v + ε)",
        ),
        # torch refuses lr = 0 and eps = 0.
        hyperparameters={
            "lr": replace(lr(1e-3), open_low=True),
            "betas": betas(),
            "eps": replace(eps(), open_low=True),
            "maximize": MAXIMIZE,
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="none",
    ),
    OptimizerInfo(
        name="adafactor",
        summary="Adam's second moment, factored into rows and columns.",
        path="torch.optim:Adafactor",
        paper="arXiv:1804.04235",
        equations=(
            "β = 1 - t^beta2_decay;  ρ = min(lr, 1/√t);  α = max(ε2, rms(p)) ρ",
            "R ← β R + (1 - β) row means of g²;  C ← β C + (1 - β) column means of g²",
            "u = g / √(R C / mean(R));  p ← p - α u / max(1, rms(u) / d)",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "beta2_decay": Number(default=-0.8, high=0, help="decay rate of beta2"),
            "eps": Numbers(
                default=(None, 1e-3),
                items=(Number(default=None, low=0, optional=True), Number(default=1e-3, low=0)),
                help="regularization constants of the squared gradient and of the parameter's scale",
            ),
            "d": Number(default=1.0, low=1, help="clipping threshold of the update's RMS"),
            "weight_decay": weight_decay(),
            **execution_flags("foreach"),
            "maximize": MAXIMIZE,
        },
        buffers={"row_var": "", "col_var": "", "variance": ""},
        decay="decoupled",
        factored=True,
    ),
)
