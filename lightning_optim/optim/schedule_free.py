"""Schedule-free learning: a rule steps z by gradients at y; x, the average of all z, is what is evaluated.

Defazio et al., arXiv:2405.15682, eq. 3 to 5, in the form of the authors' package `schedulefree`, which stores y (in the
parameter) and z, and computes x from the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import ConfigError
from .state_keys import AVERAGE_KEYS, BASE, MASTER, MAX_LR, TRAINING, WEIGHT_SUM
from .update import Update


@dataclass(frozen=True, slots=True)
class AverageStep:
    """What a step does with the average x, and so with y = (1 - β) z + β x."""

    weight: float
    """c: the weight of the new z in x."""
    share: float
    """1 - β (1 - c): how much of z's step y takes."""


def warmed_up_lr(settings: Mapping[str, Any], t: float, lr: float) -> float:
    """The lr of step t, the first of which is 1."""
    warmup_steps: int = settings["warmup_steps"]
    return lr * (t / warmup_steps) if t < warmup_steps else lr


def plan_average(
    settings: Mapping[str, Any], t: float, lr: float, numbers: Mapping[str, float]
) -> tuple[AverageStep, dict[str, float]]:
    """What step t does with the average, and the next numbers of the state.

    Args:
        settings: of the param group.
        t: the number of the step, from 1.
        lr: what multiplies the step; with 0, z and x stay where they are.
        numbers: those of the state.

    Raises:
        ConfigError: a weight overflows.
    """
    max_lr = max(lr, numbers[MAX_LR])
    try:
        weight = t ** settings["r"] * max_lr ** settings["weight_lr_power"]
    except OverflowError:
        weight = math.inf
    weight_sum = numbers[WEIGHT_SUM] + weight
    if not math.isfinite(weight_sum):
        raise ConfigError(
            f"schedule_free: the weight {t:g}^{settings['r']:g} * {max_lr:g}^{settings['weight_lr_power']:g} of step "
            f"{t:g} is not finite. Type smaller values of r and weight_lr_power, or a smaller lr"
        )
    c = weight / weight_sum if weight_sum else 0.0
    return AverageStep(c, 1 - settings["beta"] * (1 - c)), {WEIGHT_SUM: weight_sum, MAX_LR: max_lr}


def step_average(y: Any, z: Any, step: AverageStep, lost: Any, updates: Sequence[Update]) -> None:
    """Step z, and y with it, in place; both are tensors or lists of them.

    Args:
        y: the parameter.
        z: the point that the rule steps.
        step: from `plan_average`.
        lost: what weight decay takes from z, computed at y; None for nothing.
        updates: the rule's, by the gradient at y.
    """
    y.lerp_(z, step.weight)
    if lost is not None:
        y.sub_(lost, alpha=step.share)
        z.sub_(lost)
    for update in updates:
        replace(update, size=update.size * step.share).apply_to(y)
        update.apply_to(z)


# The state of a parameter.


def fit_average(state: MutableMapping[str, Any], group: Mapping[str, Any], param: Tensor) -> None:
    """Create what schedule-free needs in a state, or drop it, as the param group asks.

    Args:
        state: of the parameter; written in place.
        group: its param group.
        param: the parameter, or its master: z starts there.
    """
    if not group["schedule_free"]:
        for key in AVERAGE_KEYS:
            state.pop(key, None)
    elif BASE not in state:
        state.update({BASE: param.detach().clone(), WEIGHT_SUM: 0.0, MAX_LR: 0.0})


def check_training(groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, Mapping[str, Any]]) -> None:
    """Check that no parameter holds its evaluation weight: its gradient would be one at x.

    Raises:
        ConfigError: one does.
    """
    if any(TRAINING in state for _, _, state in _averaged(groups, states)):
        raise ConfigError(
            "schedule_free: the parameters hold their evaluation weights. Call optimizer.train() before the forward "
            "pass whose gradients you step with; under Lightning, add the callback lightning_optim.EvalWeights"
        )


def has_averages(optimizer: Optimizer) -> bool:
    """Whether an optimizer has an average to show."""
    return next(_averaged(optimizer.param_groups, optimizer.state), None) is not None


@torch.no_grad()
def show_evaluation_weights(groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> bool:
    """Put x into the parameters, and y into their states; returns whether a parameter had its training weight."""
    has_changed = False
    for group, param, state in _averaged(groups, states):
        if TRAINING not in state:
            state[TRAINING] = param.detach().clone()
            # x = y + (1 - 1/β) (z - y)
            param.copy_(state.get(MASTER, param).lerp(state[BASE], 1 - 1 / group["schedule_free"]["beta"]))
            has_changed = True
    return has_changed


@torch.no_grad()
def show_training_weights(groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> bool:
    """Put y back into the parameters, bit for bit; returns whether a parameter had its evaluation weight."""
    has_changed = False
    for _, param, state in _averaged(groups, states):
        if TRAINING in state:
            param.copy_(state.pop(TRAINING))
            has_changed = True
    return has_changed


def _averaged(
    groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, Any]
) -> Iterator[tuple[Mapping[str, Any], Tensor, Any]]:
    """`(group, parameter, state)` where there is an average: from a parameter's first step on."""
    for group in groups:
        if group.get("schedule_free"):
            for param in group["params"]:
                if BASE in (state := states.get(param, {})):
                    yield group, param, state
