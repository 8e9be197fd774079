"""`format_optimizer`: how a notebook shows an optimizer, in place of every key of every group."""

from __future__ import annotations

from dataclasses import replace

from torch.optim import Optimizer

from .plan import Plan


def format_optimizer(optimizer: Optimizer) -> str:
    """An HTML table of an optimizer's groups, each at its present lr."""
    plan = Plan.from_optimizer(optimizer)
    groups = []
    for group, param_group in zip(plan.groups, optimizer.param_groups, strict=True):
        lr = {"lr": float(param_group["lr"])} if "lr" in group.hyperparameters else {}
        groups.append(replace(group, hyperparameters={**group.hyperparameters, **lr}))
    table = replace(plan, groups=tuple(groups)).table()
    return replace(table.__rich__(), title=type(optimizer).__name__).html()
