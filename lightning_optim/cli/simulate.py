"""Each group's lr, and what else the schedule drives, at each optimizer step of a run, without running it.

The optimizer, its schedulers and the stages over them are the real ones, over parameters that have the model's names
and shapes but no values. The loop steps them where Lightning and `StagedUnfreeze` would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..build.factory import OptimizerFactory
from ..build.optimizer import build_optimizer
from ..build.scheduler_config import scheduler_config
from ..build.stage_optimizers import plan_with_stages
from ..core.errors import ConfigError, prefix_errors
from ..groups.plan import Plan
from ..schedule.factory import SchedulerFactory
from ..schedule.value_curves import read_value
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage, check_all_claimed
from .run_length import RunLength
from .thaws import Thaws, predict_thaws


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One group's lr, and what else the schedule drives."""

    group: str
    stage: str | None
    """The stage that thaws it, if there are stages."""
    lr: NDArray[np.float64]
    """`(num_steps,)`; NaN while the group is frozen."""
    also: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """By key of `also`: the same of that value; without keys that the group does not have."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What is known of a run before it is run."""

    curves: tuple[Curve, ...]
    """In the order of the group table."""
    length: RunLength
    thaws: Mapping[str, int]
    """For each stage that thaws within the run: after how many optimizer steps."""
    unpredictable: Mapping[str, str]
    """For each stage whose thaw cannot be predicted: its trigger in words."""
    plateau_metric: str | None = None
    """The metric of a ReduceLROnPlateau, whose lr is taken to stay at its first value."""


def simulate(
    module: nn.Module,
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None = None,
    stages: Sequence[Stage] = (),
    *,
    length: RunLength,
    key: str = "scheduler",
) -> Simulation:
    """Each group's lr at each optimizer step, bitwise as in a run; the model is not changed.

    Args:
        module: the model.
        optimizer: its optimizer.
        scheduler: None for a constant lr.
        stages: of `StagedUnfreeze`, with the parameters they claim.
        length: of the run; it has been checked with this scheduler and these stages.
        key: the scheduler's key in the config, for errors.

    Raises:
        ConfigError: as at the start of the run.
    """
    plan, skeleton = without_storage(plan_with_stages(optimizer, stages, module))
    built = build_optimizer(plan)
    with prefix_errors(key):
        scheduler_dict = scheduler_config(built, scheduler, length.total, length.epoch_length) or {}
    thaws = predict_thaws(stages, length)
    staged = None
    if stages:
        check_all_claimed(stages, module, excluded=frozenset(plan.frozen))
        schedulers = [scheduler_dict["scheduler"]] if scheduler_dict else []
        # Unused parameters are allowed, as nothing has a gradient here.
        staged = StagedOptimizer(built, skeleton, [replace(it, allow_unused=True) for it in stages], schedulers)
    groups = plan.groups if staged is None else staged.plan.groups
    also = {} if scheduler is None else scheduler.also or {}
    num_steps = length.total("step")
    curves = {
        group.name: Curve(
            group=group.name,
            stage=group.stage,
            lr=np.full(num_steps, math.nan),
            also={
                key: np.full(num_steps, math.nan) for key in also if read_value(group.hyperparameters, key) is not None
            },
        )
        for group in groups
    }
    with prefix_errors(key):
        _run(built, staged, thaws, scheduler_dict, length, curves)
    return Simulation(
        curves=tuple(curves.values()),
        length=length,
        thaws=thaws.steps,
        unpredictable=thaws.unpredictable,
        plateau_metric=scheduler_dict.get("monitor"),
    )


def without_storage(plan: Plan) -> tuple[Plan, nn.Module]:
    """The plan over parameters that take no memory, and a module that holds them under the same names."""
    root = nn.Module()
    tensors: dict[str, nn.Parameter] = {}
    for name, tensor in plan.tensors.items():
        scalar = torch.zeros((), dtype=tensor.dtype, device=tensor.device)
        tensors[name] = nn.Parameter(scalar.expand(tensor.shape), requires_grad=False)
        parent = root
        *path, leaf = name.split(".")
        for segment in path:
            # Not with setattr: a container may have any word as a key, such as `forward`.
            child = parent._modules.setdefault(segment, nn.Module())
            assert child is not None
            parent = child
        parent._parameters[leaf] = tensors[name]
    return replace(plan, tensors=tensors), root


def _run(
    optimizer: Optimizer,
    staged: StagedOptimizer | None,
    thaws: Thaws,
    scheduler_dict: Mapping[str, Any],
    length: RunLength,
    curves: Mapping[str, Curve],
) -> None:
    """Step through the run and record each live group's lr.

    Args:
        optimizer: the real one.
        staged: the stages over it, if there are any.
        thaws: of these stages.
        scheduler_dict: Lightning's scheduler dict; empty if every lr is constant.
        length: of the run.
        curves: by group, to be filled.
    """
    total = length.total("step")
    due: dict[int, list[str]] = {}
    for name, step in thaws.steps.items():
        due.setdefault(step, []).append(name)
    if staged is not None:
        staged.by_hand = True  # so that steps count although nothing has a gradient here
        staged.activate_stages(thaws.from_start)
    if scheduler_dict.get("reduce_on_plateau"):
        _disable_reduction(scheduler_dict["scheduler"])
    with warnings.catch_warnings():
        # torch expects a step of the optimizer before each of the scheduler.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for step in range(total):
            if staged is not None:
                for name in due.get(step, ()):
                    staged.thaw(name)
                staged.sync()
            for group in optimizer.param_groups:
                curve = curves[group["name"]]
                curve.lr[step] = group["lr"]
                for key, values in curve.also.items():
                    values[step] = read_value(group, key)
            if staged is not None:
                staged.after_step()
            if scheduler_dict and (scheduler_dict["interval"] == "step" or length.ends_epoch(step)):
                _step_scheduler(scheduler_dict, step)


def _disable_reduction(scheduler: Any) -> None:
    """Keep a ReduceLROnPlateau from ever reducing the lr."""
    for item in (scheduler, *getattr(scheduler, "_schedulers", ())):
        if isinstance(item, ReduceLROnPlateau):
            item.patience = math.inf  # type: ignore[assignment]


def _step_scheduler(scheduler_dict: Mapping[str, Any], step: int) -> None:
    metric = (0.0,) if scheduler_dict.get("reduce_on_plateau") else ()
    try:
        scheduler_dict["scheduler"].step(*metric)
    except ValueError as error:  # from torch's OneCycleLR, past its end
        raise ConfigError(f"total_steps: after {step + 1} optimizer steps of the run: {error}") from error
