"""The schedules as data: torch's, in snake_case without `lr`, and our own curves. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Choice, Flag, Hyperparameter, IncreasingIntegers, Number, Text


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """One entry of the catalog."""

    name: str
    summary: str
    path: str
    """Import path of the class, `package.module:Class`."""
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    length_argument: str | None = None
    """The argument that is set to the length of the run unless the config sets it."""
    needs_warmup: bool = False
    """Whether `warmup_steps` must be > 0."""
    takes_warmup_steps: bool = False
    """Whether the class itself takes `warmup_steps`."""
    composable: bool = True
    """Whether it may follow a warm-up, and be a block of `sequential`."""
    chainable: bool = False
    """Whether each step multiplies the lr by a factor, so that it may be a block of `chained`."""
    takes_blocks: bool = False
    """Whether it is built from other schedules, given under `schedulers`."""
    takes_function: bool = False
    """Whether it takes a Python function, which a config cannot hold."""
    scaled_path: str | None = None
    """Import path of the curve that takes its place where `final_scale` is set."""


def schedule_info(name: str) -> ScheduleInfo:
    """The catalog's entry for a schedule.

    Raises:
        ConfigError: no schedule has that name.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ConfigError(f"name: there is no schedule {name!r}.{format_choices(str(name), sorted(SCHEDULES))}")
    return SCHEDULES[name]


def schedules_with(argument: str) -> list[str]:
    """The names of the schedules that have this argument."""
    return [name for name, info in SCHEDULES.items() if argument in info.hyperparameters]


def _torch(name: str) -> str:
    return f"torch.optim.lr_scheduler:{name}"


def _curve(name: str) -> str:
    return f"lightning_optim.schedule.curves:{name}"


def _steps(default: object, low: int = 0, *, optional: bool = False, help: str) -> Number:
    return Number(default=default, low=low, integer=True, optional=optional, help=help)


_MIN_FACTOR, _MAX_FACTOR = 1e-6, 1000
"""torch divides by some of them, and multiplies others at each step: no number holds the result."""
_GAMMA = Number(default=0.1, low=0, high=_MAX_FACTOR, open_low=True, help="factor")
_ETA_MIN = Number(default=0.0, low=0, help="lowest lr, the same for every group")
_FLOOR_SCALE = Number(
    default=None, low=0, high=1, optional=True, help="or: lowest lr as a fraction of each group's peak"
)
FLOORS = ("eta_min", "min_lr")
"""The arguments that are a lowest lr, the same for every group; `final_scale` may be given in their place."""
_CYCLE_MOMENTUM = Flag(default=None, optional=True, help="also cycle momentum or beta1; null: where a group has it")
_FINAL_SCALE = Number(default=0.0, low=0, high=1, help="final lr as a fraction of the peak")
_BASE_MOMENTUM = Number(default=0.85, low=0, high=1, help="momentum at the peak lr")
_MAX_MOMENTUM = Number(default=0.95, low=0, high=1, help="momentum at the lowest lr")

SCHEDULES: dict[str, ScheduleInfo] = {
    info.name: info
    for info in (
        ScheduleInfo(
            name="constant",
            chainable=True,
            summary="lr × factor for total_iters steps, then lr.",
            path=_torch("ConstantLR"),
            hyperparameters={
                "factor": Number(default=1 / 3, low=_MIN_FACTOR, high=1, help="initial factor"),
                "total_iters": _steps(5, help="steps at lr × factor"),
            },
        ),
        ScheduleInfo(
            name="linear",
            chainable=True,
            summary="lr × a factor that changes linearly from start_factor to end_factor.",
            path=_torch("LinearLR"),
            hyperparameters={
                "start_factor": Number(default=1 / 3, low=0, high=1, open_low=True, help="initial factor"),
                "end_factor": Number(default=1.0, low=0, high=1, help="final factor"),
                "total_iters": _steps(5, 1, help="steps from start_factor to end_factor"),
            },
        ),
        ScheduleInfo(
            name="exponential",
            chainable=True,
            summary="lr × gamma at every step.",
            path=_torch("ExponentialLR"),
            hyperparameters={"gamma": Number(low=0, high=_MAX_FACTOR, open_low=True, help="factor")},
        ),
        ScheduleInfo(
            name="step",
            chainable=True,
            summary="lr × gamma every step_size steps.",
            path=_torch("StepLR"),
            hyperparameters={
                "step_size": Number(low=1, integer=True, help="steps between two drops"),
                "gamma": _GAMMA,
            },
        ),
        ScheduleInfo(
            name="multi_step",
            chainable=True,
            summary="lr × gamma at each milestone.",
            path=_torch("MultiStepLR"),
            hyperparameters={"milestones": IncreasingIntegers(help="steps at which lr drops"), "gamma": _GAMMA},
        ),
        ScheduleInfo(
            name="polynomial",
            chainable=True,
            summary="lr × (1 - t / total_iters) ** power.",
            path=_torch("PolynomialLR"),
            hyperparameters={
                "total_iters": _steps(5, 1, help="steps until lr is 0"),
                "power": Number(default=1.0, low=0, help="power"),
            },
        ),
        ScheduleInfo(
            name="cosine_annealing",
            chainable=True,
            summary="Half a cosine from lr to eta_min, over T_max steps.",
            path=_torch("CosineAnnealingLR"),
            hyperparameters={
                "T_max": _steps(None, 1, optional=True, help="steps; null: the whole run"),
                "eta_min": _ETA_MIN,
                "final_scale": _FLOOR_SCALE,
            },
            length_argument="T_max",
            scaled_path=_curve("CosineAnnealing"),
        ),
        ScheduleInfo(
            name="cosine_annealing_warm_restarts",
            summary="Half a cosine, restarted at its end, each T_mult times as long as the one before.",
            path=_torch("CosineAnnealingWarmRestarts"),
            hyperparameters={
                "T_0": Number(low=1, integer=True, help="steps until the first restart"),
                "T_mult": _steps(1, 1, help="factor on the length at each restart"),
                "eta_min": _ETA_MIN,
                "final_scale": _FLOOR_SCALE,
            },
            scaled_path=_curve("CosineWarmRestarts"),
        ),
        ScheduleInfo(
            name="cyclic",
            summary="Up and down between base_lr and each group's own lr.",
            path=_torch("CyclicLR"),
            hyperparameters={
                "base_lr": Number(low=0, help="lowest lr, the same for every group"),
                "step_size_up": _steps(2000, 1, help="steps up"),
                "step_size_down": _steps(None, 1, optional=True, help="steps down; null: as many as up"),
                "mode": Choice(default="triangular", options=("triangular", "triangular2", "exp_range")),
                "gamma": Number(default=1.0, low=0, high=_MAX_FACTOR, open_low=True, help="factor of exp_range"),
                "scale_mode": Choice(default="cycle", options=("cycle", "iterations")),
                "cycle_momentum": _CYCLE_MOMENTUM,
                "base_momentum": Number(default=0.8, low=0, high=1, help="momentum at the peak lr"),
                "max_momentum": Number(default=0.9, low=0, high=1, help="momentum at the lowest lr"),
            },
            composable=False,
        ),
        ScheduleInfo(
            name="one_cycle",
            summary="Up to each group's own lr, then down to far below the first lr.",
            path=_torch("OneCycleLR"),
            hyperparameters={
                "pct_start": Number(default=0.3, low=0, high=1, help="fraction of the run in which lr increases"),
                "anneal_strategy": Choice(default="cos", options=("cos", "linear")),
                "cycle_momentum": _CYCLE_MOMENTUM,
                "base_momentum": _BASE_MOMENTUM,
                "max_momentum": _MAX_MOMENTUM,
                "div_factor": Number(default=25.0, low=_MIN_FACTOR, help="the first lr is peak / div_factor"),
                "final_div_factor": Number(
                    default=1e4, low=_MIN_FACTOR, help="the last lr is the first / final_div_factor"
                ),
                "three_phase": Flag(default=False, help="return to the first lr before the last phase"),
            },
            length_argument="total_steps",
            composable=False,
        ),
        ScheduleInfo(
            name="reduce_on_plateau",
            summary="lr × factor when the monitored metric stops improving.",
            path=_torch("ReduceLROnPlateau"),
            hyperparameters={
                "monitor": Text(default=None, optional=True, help="name of a logged metric, for example val/loss"),
                "mode": Choice(default="min", options=("min", "max")),
                "factor": Number(default=0.1, low=0, high=1, open_high=True, help="factor"),
                "patience": _steps(10, help="steps without improvement that are tolerated"),
                "threshold": Number(default=1e-4, low=0, help="smallest change that counts as an improvement"),
                "threshold_mode": Choice(default="rel", options=("rel", "abs")),
                "cooldown": _steps(0, help="steps to wait after a drop"),
                "min_lr": Number(default=0.0, low=0, help="lowest lr, the same for every group"),
                "final_scale": _FLOOR_SCALE,
                "eps": Number(default=1e-8, low=0, help="smallest change of lr that is applied"),
            },
            composable=False,
        ),
        ScheduleInfo(
            name="lambda",
            summary="lr × lr_lambda(t). From Python only.",
            path=_torch("LambdaLR"),
            takes_function=True,
        ),
        ScheduleInfo(
            name="multiplicative",
            chainable=True,
            summary="lr × the product of lr_lambda(1..t). From Python only.",
            path=_torch("MultiplicativeLR"),
            takes_function=True,
        ),
        ScheduleInfo(
            name="sequential",
            summary="One schedule after another; the next begins at each milestone.",
            path=_torch("SequentialLR"),
            hyperparameters={"milestones": IncreasingIntegers(help="steps at which the next schedule begins")},
            takes_blocks=True,
        ),
        ScheduleInfo(
            name="chained",
            summary="Several schedules at once: their factors are multiplied.",
            path=_torch("ChainedScheduler"),
            takes_blocks=True,
            composable=False,
        ),
        ScheduleInfo(
            name="warmup_cosine",
            summary="Linear warm-up, then half a cosine to final_scale × peak.",
            path=_curve("WarmupCosine"),
            hyperparameters={"final_scale": _FINAL_SCALE},
            length_argument="total_steps",
            takes_warmup_steps=True,
        ),
        ScheduleInfo(
            name="warmup_linear",
            summary="Linear warm-up, then linear decay to final_scale × peak.",
            path=_curve("WarmupLinear"),
            hyperparameters={"final_scale": _FINAL_SCALE},
            length_argument="total_steps",
            takes_warmup_steps=True,
        ),
        ScheduleInfo(
            name="warmup_stable_decay",
            summary="Linear warm-up, constant at the peak, then a decay over the last decay_steps.",
            path=_curve("WarmupStableDecay"),
            hyperparameters={
                "decay_steps": _steps(None, 1, optional=True, help="steps of the decay; null: a tenth of the run"),
                "decay_shape": Choice(default="linear", options=("linear", "cosine", "sqrt")),
                "final_scale": _FINAL_SCALE,
            },
            length_argument="total_steps",
            takes_warmup_steps=True,
        ),
        ScheduleInfo(
            name="noam",
            summary="Linear warm-up to the peak, then inverse square root decay (arXiv:1706.03762).",
            path=_curve("Noam"),
            needs_warmup=True,
            takes_warmup_steps=True,
        ),
        ScheduleInfo(
            name="inverse_sqrt",
            summary="Linear warm-up to the peak, then inverse square root decay with a timescale.",
            path=_curve("InverseSqrt"),
            hyperparameters={
                "timescale": _steps(None, 1, optional=True, help="steps; null: warmup_steps, or 10000 if that is 0"),
            },
            takes_warmup_steps=True,
        ),
    )
}
