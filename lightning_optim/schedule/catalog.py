"""The schedules there are, as data: torch's by name in snake_case without `lr`, and the curves of ours (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import ConfigError, choices
from ..core.hyperparameters import Choice, Flag, Hyperparameter, IncreasingIntegers, Number, Text


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """What is known of one schedule."""

    name: str
    summary: str
    path: str
    """Where the class is, `package.module:Class`."""
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    length: str | None = None
    """The argument that takes the run's number of steps where the config leaves it open."""
    needs_warmup: bool = False
    """Whether it is nothing without a warm-up."""
    own_warmup: bool = False
    """Whether its class takes `warmup_steps`."""
    wrappable: bool = True
    """Whether a warm-up, or `sequential`, may stand before it."""
    multiplies: bool = False
    """Whether each step multiplies the lr by a factor, so that it may stand in `chained`."""
    blocks: bool = False
    """Whether it is made of others, under `schedulers`."""
    function: bool = False
    """Whether it takes a function, which a config cannot hold."""


def schedule_info(name: str) -> ScheduleInfo:
    """What is known of one schedule.

    Raises:
        ConfigError: no schedule has that name.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ConfigError(f"name: there is no schedule {name!r}.{choices(str(name), sorted(SCHEDULES))}")
    return SCHEDULES[name]


def schedules_with(argument: str) -> list[str]:
    """The schedules that have an argument of this name."""
    return [name for name, info in SCHEDULES.items() if argument in info.hyperparameters]


def _torch(name: str) -> str:
    return f"torch.optim.lr_scheduler:{name}"


def _curve(name: str) -> str:
    return f"lightning_optim.schedule.curves:{name}"


def _steps(default: object, low: int = 0, *, optional: bool = False, help: str) -> Number:
    return Number(default=default, low=low, integer=True, optional=optional, help=help)


_GAMMA = Number(default=0.1, low=0, open_low=True, help="factor")
_ETA_MIN = Number(default=0.0, low=0, help="lowest lr, the same for every group")
_CYCLE_MOMENTUM = Flag(default=None, optional=True, help="cycle momentum or beta1 too; null: where a group has it")
_FINAL_SCALE = Number(default=0.0, low=0, high=1, help="the last lr, as a part of the peak")
_BASE_MOMENTUM = Number(default=0.85, low=0, high=1, help="momentum at the peak of lr")
_MAX_MOMENTUM = Number(default=0.95, low=0, high=1, help="momentum at the foot of lr")

SCHEDULES: dict[str, ScheduleInfo] = {
    info.name: info
    for info in (
        ScheduleInfo(
            name="constant",
            multiplies=True,
            summary="lr × factor for total_iters steps, then lr.",
            path=_torch("ConstantLR"),
            hyperparameters={
                "factor": Number(default=1 / 3, low=0, high=1, help="factor at first"),
                "total_iters": _steps(5, help="steps until lr is whole"),
            },
        ),
        ScheduleInfo(
            name="linear",
            multiplies=True,
            summary="lr × a factor that goes in a line from start_factor to end_factor.",
            path=_torch("LinearLR"),
            hyperparameters={
                "start_factor": Number(default=1 / 3, low=0, high=1, open_low=True, help="factor at first"),
                "end_factor": Number(default=1.0, low=0, high=1, help="factor at last"),
                "total_iters": _steps(5, help="steps from one to the other"),
            },
        ),
        ScheduleInfo(
            name="exponential",
            multiplies=True,
            summary="lr × gamma at every step.",
            path=_torch("ExponentialLR"),
            hyperparameters={"gamma": Number(low=0, open_low=True, help="factor")},
        ),
        ScheduleInfo(
            name="step",
            multiplies=True,
            summary="lr × gamma every step_size steps.",
            path=_torch("StepLR"),
            hyperparameters={
                "step_size": Number(low=1, integer=True, help="steps between two drops"),
                "gamma": _GAMMA,
            },
        ),
        ScheduleInfo(
            name="multi_step",
            multiplies=True,
            summary="lr × gamma at each milestone.",
            path=_torch("MultiStepLR"),
            hyperparameters={"milestones": IncreasingIntegers(help="steps at which lr drops"), "gamma": _GAMMA},
        ),
        ScheduleInfo(
            name="polynomial",
            multiplies=True,
            summary="lr × (1 - t / total_iters) ** power.",
            path=_torch("PolynomialLR"),
            hyperparameters={
                "total_iters": _steps(5, help="steps until lr is 0"),
                "power": Number(default=1.0, low=0, help="power"),
            },
        ),
        ScheduleInfo(
            name="cosine_annealing",
            multiplies=True,
            summary="Half a cosine from lr to eta_min, over T_max steps.",
            path=_torch("CosineAnnealingLR"),
            hyperparameters={
                "T_max": _steps(None, 1, optional=True, help="steps; null: the whole run"),
                "eta_min": _ETA_MIN,
            },
            length="T_max",
        ),
        ScheduleInfo(
            name="cosine_annealing_warm_restarts",
            summary="Half a cosine, again and again, each T_mult times as long as the last.",
            path=_torch("CosineAnnealingWarmRestarts"),
            hyperparameters={
                "T_0": Number(low=1, integer=True, help="steps of the first"),
                "T_mult": _steps(1, 1, help="factor on the length"),
                "eta_min": _ETA_MIN,
            },
        ),
        ScheduleInfo(
            name="cyclic",
            summary="Between base_lr and each group's own lr, up and down.",
            path=_torch("CyclicLR"),
            hyperparameters={
                "base_lr": Number(low=0, help="lowest lr, the same for every group"),
                "step_size_up": _steps(2000, 1, help="steps up"),
                "step_size_down": _steps(None, 1, optional=True, help="steps down; null: as many as up"),
                "mode": Choice(default="triangular", options=("triangular", "triangular2", "exp_range")),
                "gamma": Number(default=1.0, low=0, open_low=True, help="factor of exp_range"),
                "scale_mode": Choice(default="cycle", options=("cycle", "iterations")),
                "cycle_momentum": _CYCLE_MOMENTUM,
                "base_momentum": Number(default=0.8, low=0, high=1, help="momentum at the peak of lr"),
                "max_momentum": Number(default=0.9, low=0, high=1, help="momentum at the foot of lr"),
            },
            wrappable=False,
        ),
        ScheduleInfo(
            name="one_cycle",
            summary="Up to each group's own lr and far down again, once.",
            path=_torch("OneCycleLR"),
            hyperparameters={
                "pct_start": Number(default=0.3, low=0, high=1, help="part of the run that climbs"),
                "anneal_strategy": Choice(default="cos", options=("cos", "linear")),
                "cycle_momentum": _CYCLE_MOMENTUM,
                "base_momentum": _BASE_MOMENTUM,
                "max_momentum": _MAX_MOMENTUM,
                "div_factor": Number(default=25.0, low=0, open_low=True, help="the first lr is peak / div_factor"),
                "final_div_factor": Number(
                    default=1e4, low=0, open_low=True, help="the last is first / final_div_factor"
                ),
                "three_phase": Flag(default=False, help="down to the first lr before the last phase"),
            },
            length="total_steps",
            wrappable=False,
        ),
        ScheduleInfo(
            name="reduce_on_plateau",
            summary="lr × factor when the monitored metric stops getting better.",
            path=_torch("ReduceLROnPlateau"),
            hyperparameters={
                "monitor": Text(default=None, optional=True, help="the metric, as the module logs it: val/loss"),
                "mode": Choice(default="min", options=("min", "max")),
                "factor": Number(default=0.1, low=0, high=1, open_high=True, help="factor"),
                "patience": _steps(10, help="steps without progress that are let pass"),
                "threshold": Number(default=1e-4, low=0, help="what counts as progress"),
                "threshold_mode": Choice(default="rel", options=("rel", "abs")),
                "cooldown": _steps(0, help="steps to wait after a drop"),
                "min_lr": Number(default=0.0, low=0, help="lowest lr, the same for every group"),
                "eps": Number(default=1e-8, low=0, help="smallest drop"),
            },
            wrappable=False,
        ),
        ScheduleInfo(
            name="lambda",
            summary="lr × lr_lambda(t). From Python only.",
            path=_torch("LambdaLR"),
            function=True,
        ),
        ScheduleInfo(
            name="multiplicative",
            multiplies=True,
            summary="lr × the product of lr_lambda(1..t). From Python only.",
            path=_torch("MultiplicativeLR"),
            function=True,
        ),
        ScheduleInfo(
            name="sequential",
            summary="One schedule after another, changing at the milestones.",
            path=_torch("SequentialLR"),
            hyperparameters={"milestones": IncreasingIntegers(help="steps at which the next begins")},
            blocks=True,
        ),
        ScheduleInfo(
            name="chained",
            summary="Several schedules at once: their factors multiply.",
            path=_torch("ChainedScheduler"),
            blocks=True,
            wrappable=False,
        ),
        ScheduleInfo(
            name="warmup_cosine",
            summary="Linear warm-up, then half a cosine to final_scale × peak.",
            path=_curve("WarmupCosine"),
            hyperparameters={"final_scale": _FINAL_SCALE},
            length="total_steps",
            own_warmup=True,
        ),
        ScheduleInfo(
            name="warmup_linear",
            summary="Linear warm-up, then a line to final_scale × peak.",
            path=_curve("WarmupLinear"),
            hyperparameters={"final_scale": _FINAL_SCALE},
            length="total_steps",
            own_warmup=True,
        ),
        ScheduleInfo(
            name="warmup_stable_decay",
            summary="Linear warm-up, the peak, and a fall over the last decay_steps.",
            path=_curve("WarmupStableDecay"),
            hyperparameters={
                "decay_steps": _steps(None, 1, optional=True, help="steps of the fall; null: a tenth of the run"),
                "decay_shape": Choice(default="linear", options=("linear", "cosine", "sqrt")),
                "final_scale": _FINAL_SCALE,
            },
            length="total_steps",
            own_warmup=True,
        ),
        ScheduleInfo(
            name="noam",
            summary="Linear warm-up to the peak, then the inverse square root (arXiv:1706.03762).",
            path=_curve("Noam"),
            needs_warmup=True,
            own_warmup=True,
        ),
        ScheduleInfo(
            name="inverse_sqrt",
            summary="Linear warm-up to the peak, then an inverse square root of its own timescale.",
            path=_curve("InverseSqrt"),
            hyperparameters={
                "timescale": _steps(None, 1, optional=True, help="steps; null: warmup_steps, or 10000 without"),
            },
            own_warmup=True,
        ),
    )
}
