"""Models with numbered layers, and what a rule with `layers` makes of them."""

from __future__ import annotations

import torch
from torch import nn

from lightning_optim import OptimizerFactory

DECAY = 0.5
"""Its powers are exact in floating point: lrs are compared with ==."""


def tree(*names: str) -> nn.Module:
    """A model with a matrix of 2 x 2 under each of these names, in this order."""
    root = nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(torch.zeros(2, 2)))
    return root


def plan(model, groups):
    return OptimizerFactory("adamw", lr=1.0, groups=groups).plan(model)


def params_by_group(model, groups):
    """By group: the names of its parameters."""
    return {group.name: list(group.params) for group in plan(model, groups).groups}


def lr_by_parameter(model, groups):
    """By parameter: its lr, as the built optimizer has it."""
    optimizer = OptimizerFactory("adamw", lr=1.0, groups=groups)(model)
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def depth_rule(layers="enc.layer.{i}", **rule):
    return {"depth": {"layers": layers, "layer_decay": DECAY, **rule}}


ENCODER = [
    "enc.embed.weight",
    "enc.layer.0.fc.weight",
    "enc.layer.0.fc.bias",
    "enc.layer.1.fc.weight",
    "enc.layer.1.fc.bias",
    "enc.pooler.weight",
    "head.weight",
]
