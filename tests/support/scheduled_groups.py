"""An optimizer with three groups whose rules may set `schedule:`, and each group's lr and momentum at each step."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory
from tests.support.schedules import step_scheduler

STEPS = 30
PEAKS = {"stem": 0.4, "neck": 0.1, "head": 0.05}
"""The lr of each part of the model; each part is a group."""

SGD, WITH_MOMENTUM, ONE_WITHOUT_MOMENTUM = "sgd", "muon + adamw + sgd", "lion + adagrad + rmsprop"
ALGORITHMS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    SGD: {name: ("sgd", {"momentum": 0.9}) for name in PEAKS},
    WITH_MOMENTUM: {"stem": ("muon", {}), "neck": ("adamw", {}), "head": ("sgd", {})},
    ONE_WITHOUT_MOMENTUM: {"stem": ("lion", {}), "neck": ("adagrad", {}), "head": ("rmsprop", {})},
}
"""By case: the algorithm of each part, and its hyperparameters besides lr."""

Curves = list[dict[str, tuple[Any, Any]]]
"""At each step the lr and the momentum of each group, by the group's name."""


def build_net() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in PEAKS})


def build_factory(algorithms: str, **schedules: Any) -> OptimizerFactory:
    """One rule for each part, with the `schedule:` given for the part."""
    rules = {}
    for part, (algorithm, hyperparameters) in ALGORITHMS[algorithms].items():
        schedule = {"schedule": schedules[part]} if part in schedules else {}
        rules[part] = {"params": part, "optimizer": algorithm, "lr": PEAKS[part], **hyperparameters, **schedule}
    return OptimizerFactory(ALGORITHMS[algorithms]["head"][0], groups=rules)


def build_alone(algorithms: str, part: str) -> torch.optim.Optimizer:
    """An optimizer of one part only, with one group named `default`."""
    algorithm, hyperparameters = ALGORITHMS[algorithms][part]
    return OptimizerFactory(algorithm, lr=PEAKS[part], **hyperparameters)(build_net()[part])


def momentum_of(group: dict[str, Any]) -> Any:
    return group.get("momentum", group.get("betas", (None,))[0])


def set_gradients(parameters: Iterable[Tensor], t: int) -> None:
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.1 * (t + number))


def record_curves(optimizer: Any, scheduler: Any, first: int = 0, last: int = STEPS, *, train: bool = False) -> Curves:
    """The lr and momentum of each group before each step.

    Args:
        optimizer: to step.
        scheduler: to step after it; None for a constant lr.
        first: number of the first step.
        last: number of the first step that is not taken.
        train: whether parameters have gradients and change; the curves do not depend on it.
    """
    curves = []
    for t in range(first, last):
        curves.append({group["name"]: (group["lr"], momentum_of(group)) for group in optimizer.param_groups})
        if train:
            set_gradients((p for group in optimizer.param_groups for p in group["params"]), t)
        optimizer.step()
        if scheduler is not None:
            step_scheduler(scheduler, t)
    return curves


def curve_of(curves: Curves, name: str) -> list[tuple[Any, Any]]:
    return [groups[name] for groups in curves]


def lrs_of(curves: Curves, name: str) -> list[Any]:
    return [groups[name][0] for groups in curves]


@cache
def curve_alone(algorithms: str, part: str, scheduler: SchedulerFactory | None) -> list[tuple[Any, Any]]:
    """The curve of a part in an optimizer of its own, under its own scheduler."""
    optimizer = build_alone(algorithms, part)
    return curve_of(record_curves(optimizer, scheduler and scheduler(optimizer, STEPS)), "default")
