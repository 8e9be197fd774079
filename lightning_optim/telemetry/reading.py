"""One optimizer after one step: its groups' settings, and samples of every tensor that can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from .norms import Sample

# Their state is a number that belongs to a parameter, not a buffer.
_SCALAR_STATES = ("step", "mu_product", "eta", "mu")
FIRST_MOMENTS = ("exp_avg", "momentum_buffer")


def settings(optimizer: Optimizer, plan: Plan) -> dict[tuple[str, str], float]:
    """`(signal, group)` → value in force, for lr, weight decay, momentum or betas, and the number of steps."""
    values: dict[tuple[str, str], float] = {}
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        for signal, value in _numbers(live):
            values[signal, group.name] = float(value)
        if (steps := _steps(optimizer, live)) is not None:
            values["step", group.name] = steps
    return values


def samples(optimizer: Optimizer, plan: Plan) -> list[Sample]:
    """Gradients, parameters and every floating tensor of the state, in the order of groups and parameters."""
    found = []
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        for name, parameter in zip(group.params, live["params"], strict=True):
            if parameter.grad is not None:
                found.append(Sample("norm/grad", group.name, name, _dense(parameter.grad)))
            found.append(Sample("norm/param", group.name, name, parameter))
            state = optimizer.state.get(parameter, {})
            found += [Sample(f"norm/{key}", group.name, name, buffer) for key, buffer in buffers(state, parameter)]
    return found


def buffers(state: Mapping[str, Any], parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The state's tensors that can be measured: found, not listed, so that any optimizer has them."""
    for key, value in state.items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()) or not value.numel():
            continue
        if value.ndim > 0 or (value.shape == parameter.shape and key not in _SCALAR_STATES):
            yield key, value


def _dense(gradient: Tensor) -> Tensor:
    """A sparse gradient's values, each row once: all that counts towards its norm."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _numbers(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("lr", "weight_decay", "momentum"):
        if isinstance(group.get(key), (int, float, Tensor)):
            yield key, group[key]
    betas = group.get("betas")
    if isinstance(betas, (list, tuple)):
        for number, beta in enumerate(betas, start=1):
            yield f"beta{number}", beta


def _steps(optimizer: Optimizer, group: Mapping[str, Any]) -> float | None:
    """The largest step count in a group."""
    counts = [optimizer.state[p]["step"] for p in group["params"] if "step" in optimizer.state.get(p, {})]
    tensors = [count for count in counts if isinstance(count, Tensor)]
    numbers = [float(count) for count in counts if not isinstance(count, Tensor)]
    if tensors:
        numbers.append(torch.stack(tensors).max().item())
    return max(numbers, default=None)
