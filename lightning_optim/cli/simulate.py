"""The lr of each group at each optimizer step of a run that is not run.

The optimizer, its schedulers and the stages over them are the real ones, over parameters that have the model's names
and shapes and nothing in them; the loop steps what Lightning and `StagedUnfreeze` would step, when they would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..core.errors import ConfigError, prefix_errors
from ..groups.plan import Plan
from ..schedule.factory import SchedulerFactory
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage, check_unclaimed
from ..stages.timetable import Timetable
from ..stages.triggers import Clock, Trigger
from .length import Length


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One group's lr."""

    group: str
    stage: str | None
    """The stage that thaws it, if there are stages."""
    lr: NDArray[np.float64]
    """By optimizer steps done; nan while it is frozen."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What can be known of a run before it is run."""

    curves: tuple[Curve, ...]
    """In the order of the table."""
    length: Length
    thaws: Mapping[str, int]
    """By stage that thaws within the run: after how many optimizer steps."""
    unpredictable: Mapping[str, str]
    """By stage of which nobody can know when it thaws: its trigger in words."""
    plateau_of: str | None = None
    """The metric of a ReduceLROnPlateau, which is taken to stay at the lr it begins with."""


class _Never(Trigger):
    """Of a stage that cannot be predictable."""

    def due(self, clock: Clock) -> bool:
        return False


def simulate(
    module: nn.Module,
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None = None,
    stages: Sequence[Stage] = (),
    *,
    length: Length,
    key: str = "scheduler",
) -> Simulation:
    """The lr of each group at each optimizer step, bitwise as a run has it; nothing of the model is changed.

    Args:
        module: the model.
        optimizer: its config.
        scheduler: None for a constant lr.
        stages: of `StagedUnfreeze`, with their claims.
        length: how long the run is; checked with these.
        key: where in the config the scheduler is, for errors.

    Raises:
        ConfigError: as at the start of the run.
    """
    plan, skeleton = _without_storage(optimizer.plan(module))
    built = build_optimizer(plan)
    with prefix_errors(key):
        scheduling = scheduler_config(built, scheduler, length.total) or {}
    unpredictable = {stage.name: str(stage.trigger) for stage in Timetable(stages).unpredictable}
    timetable = Timetable([_prepared(stage, predictable=stage.name not in unpredictable) for stage in stages])
    staged = None
    if stages:
        check_unclaimed(stages, module, but=frozenset(plan.frozen))
        staged = StagedOptimizer(built, skeleton, timetable.stages, [scheduling["scheduler"]] if scheduling else [])
    groups = plan.groups if staged is None else staged.plan.groups
    curves = {
        group.name: Curve(group=group.name, stage=group.stage, lr=np.full(length.total("step"), math.nan))
        for group in groups
    }
    with prefix_errors(key):
        thaws = _step(built, staged, timetable, scheduling, length, curves)
    return Simulation(
        curves=tuple(curves.values()),
        length=length,
        thaws=thaws,
        unpredictable=unpredictable,
        plateau_of=scheduling.get("monitor"),
    )


def _prepared(stage: Stage, *, predictable: bool) -> Stage:
    # Nothing here has a gradient.
    return replace(stage, allow_unused=True, trigger=stage.trigger if predictable else _Never())


def _without_storage(plan: Plan) -> tuple[Plan, nn.Module]:
    """A plan over parameters that take no memory, and a module that holds them under the same names."""
    root = nn.Module()
    tensors: dict[str, nn.Parameter] = {}
    for name, tensor in plan.tensors.items():
        one = torch.zeros((), dtype=tensor.dtype, device=tensor.device)
        tensors[name] = nn.Parameter(one.expand(tensor.shape), requires_grad=False)
        around = root
        *path, leaf = name.split(".")
        for segment in path:
            # Not by setattr: a container of the user's may have any word for a key.
            below = around._modules.setdefault(segment, nn.Module())
            assert below is not None
            around = below
        around._parameters[leaf] = tensors[name]
    return replace(plan, tensors=tensors), root


def _step(
    optimizer: Optimizer,
    staged: StagedOptimizer | None,
    timetable: Timetable,
    scheduling: Mapping[str, Any],
    length: Length,
    curves: Mapping[str, Curve],
) -> dict[str, int]:
    """Go through the run and note each live group's lr; returns after how many steps which stage thaws.

    Args:
        optimizer: the real one.
        staged: the stages over it, if there are.
        timetable: of these stages.
        scheduling: Lightning's scheduler dict; empty where every lr is constant.
        length: of the run.
        curves: by group, to be filled.
    """
    total = length.total("step")
    thaws = {}
    if staged is not None:
        staged.activate_stages(timetable.thawed)
    if scheduling.get("reduce_on_plateau"):
        _hold(scheduling["scheduler"])
    with warnings.catch_warnings():
        # torch looks for a step of the optimizer before each.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for step in range(total):
            epoch = length.epoch_of(step)
            if staged is not None:
                for stage in timetable.due(Clock(epoch=epoch, step=step, total_steps=total)):
                    staged.thaw(stage.name)
                    thaws[stage.name] = step
                staged.follow()
            for group in optimizer.param_groups:
                curves[group["name"]].lr[step] = group["lr"]
            if staged is not None:
                staged.after_step()
            if scheduling and (scheduling["interval"] == "step" or length.ends_epoch(step)):
                _step_scheduler(scheduling, step)
    return thaws


def _hold(scheduler: Any) -> None:
    """Keep a scheduler that waits for a plateau from ever finding one."""
    for one in (scheduler, *getattr(scheduler, "_schedulers", ())):
        if isinstance(one, ReduceLROnPlateau):
            one.patience = math.inf  # type: ignore[assignment]


def _step_scheduler(scheduling: Mapping[str, Any], step: int) -> None:
    metric = (0.0,) if scheduling.get("reduce_on_plateau") else ()
    try:
        scheduling["scheduler"].step(*metric)
    except ValueError as error:  # torch's OneCycleLR, past its end
        raise ConfigError(f"total_steps: after {step + 1} optimizer steps of the run: {error}") from error
