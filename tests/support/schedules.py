"""Every schedule of `SchedulerFactory` with arguments that leave no part of it unused, and one way to step it."""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler

from lightning_optim.schedule.catalog import SCHEDULES
from lightning_optim.schedule.curves import InverseSqrt, Noam, WarmupCosine, WarmupLinear, WarmupStableDecay


def lr_lambda(t: int) -> float:
    return 0.9**t


TORCH_SCHEDULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "constant": (lr_scheduler.ConstantLR, {"factor": 0.3, "total_iters": 7}),
    "linear": (lr_scheduler.LinearLR, {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 7}),
    "exponential": (lr_scheduler.ExponentialLR, {"gamma": 0.93}),
    "step": (lr_scheduler.StepLR, {"step_size": 7, "gamma": 0.3}),
    "multi_step": (lr_scheduler.MultiStepLR, {"milestones": [3, 11, 12], "gamma": 0.3}),
    "polynomial": (lr_scheduler.PolynomialLR, {"total_iters": 20, "power": 1.7}),
    "cosine_annealing": (lr_scheduler.CosineAnnealingLR, {"T_max": 11, "eta_min": 0.01}),
    "cosine_annealing_warm_restarts": (
        lr_scheduler.CosineAnnealingWarmRestarts,
        {"T_0": 5, "T_mult": 2, "eta_min": 0.01},
    ),
    "cyclic": (lr_scheduler.CyclicLR, {"base_lr": 0.01, "step_size_up": 3, "step_size_down": 4, "mode": "triangular2"}),
    "one_cycle": (lr_scheduler.OneCycleLR, {"total_steps": 60, "pct_start": 0.4, "three_phase": True}),
    "reduce_on_plateau": (lr_scheduler.ReduceLROnPlateau, {"patience": 2, "factor": 0.5, "min_lr": 0.02}),
    "lambda": (lr_scheduler.LambdaLR, {"lr_lambda": lr_lambda}),
    "multiplicative": (lr_scheduler.MultiplicativeLR, {"lr_lambda": lr_lambda}),
}
"""By schedule name: torch's class, and arguments that it and `SchedulerFactory` both take."""
CYCLIC_SCHEDULES = ("cyclic", "one_cycle")
"""They take each group's lr as `max_lr`, and cycle its momentum."""
WARMUP_SCHEDULES = [name for name in TORCH_SCHEDULES if name not in (*CYCLIC_SCHEDULES, "reduce_on_plateau")]
"""The torch schedules that a warm-up may precede."""

CURVES: dict[str, tuple[dict[str, Any], Any]] = {
    "warmup_cosine": ({"final_scale": 0.1}, WarmupCosine(5, 25, 0.1)),
    "warmup_linear": ({"final_scale": 0.1}, WarmupLinear(5, 25, 0.1)),
    "warmup_stable_decay": (
        {"decay_steps": 8, "decay_shape": "sqrt", "final_scale": 0.1},
        WarmupStableDecay(5, 25, 8, "sqrt", 0.1),
    ),
    "noam": ({}, Noam(5)),
    "inverse_sqrt": ({"timescale": 7}, InverseSqrt(5, 7)),
}
"""By schedule name: arguments, and the factor that they give with `warmup_steps=5` and `total_steps=25`."""
CURVES_WITH_LENGTH = [name for name in CURVES if SCHEDULES[name].length_argument]

SEQUENCE: dict[str, Any] = {
    "schedulers": [{"name": "linear"}, {"name": "exponential", "gamma": 0.9}],
    "milestones": [6],
}
SCHEDULE_CONFIGS: dict[str, dict[str, Any]] = {
    **{name: {**arguments, "name": name} for name, (_, arguments) in TORCH_SCHEDULES.items()},
    **{
        name: {
            "name": name,
            "warmup_steps": 5,
            **given,
            **({"total_steps": 25} if name in CURVES_WITH_LENGTH else {}),
        }
        for name, (given, _) in CURVES.items()
    },
    **{f"warmup+{name}": {**TORCH_SCHEDULES[name][1], "name": name, "warmup_steps": 15} for name in WARMUP_SCHEDULES},
    "sequential": {"name": "sequential", **SEQUENCE},
    "warmup+sequential": {"name": "sequential", "warmup_steps": 3, **SEQUENCE},
    "chained": {"name": "chained", "schedulers": SEQUENCE["schedulers"]},
}
"""`SchedulerFactory(**config)` for every schedule, and for every one that may follow a warm-up."""


def step_scheduler(scheduler: Any, t: int) -> None:
    """One step of any schedule; the metric of a plateau falls until step 5 and then stays."""
    takes_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or hasattr(scheduler, "_views")
    scheduler.step(*([max(5.0 - t, 0.0)] if takes_metric else []))
