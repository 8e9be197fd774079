"""What there is to see of an optimizer: its groups' settings, and every tensor that can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from .quantized import decoded, is_coded, is_part_of_a_code, num_bytes
from .state_leaves import is_float, leaves

# Their state is a number that belongs to a parameter, not a buffer.
_SCALAR_STATES = ("step", "mu_product", "eta", "mu")
_FIRST_MOMENTS = ("exp_avg", "momentum_buffer")
_SECOND_MOMENTS = (
    *("exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var", "square_avg", "acc_delta", "sum"),
    *("variance", "row_var", "col_var"),
)
_TAKEN = ("grad", "grad_unclipped", "param", "update")  # by what is no state
_USUAL = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_TABLES = ("qmap1", "qmap2", "absmax1", "absmax2")  # of a code, with the numbers that bitsandbytes has
_MIB = 1 << 20


class Samples(NamedTuple):
    """A group's tensors that count towards one signal."""

    signal: str
    group: str
    parameters: list[str]
    """Clean names: whose each tensor is."""
    tensors: list[Tensor]


class Setting(NamedTuple):
    """A number in force in a group: a tensor where the optimizer has it so, which may lie on a device."""

    signal: str
    group: str
    value: float | Tensor


def settings(optimizer: Optimizer, plan: Plan) -> list[Setting]:
    """lr, weight decay, momentum or betas of each group."""
    groups = zip(plan.groups, optimizer.param_groups, strict=True)
    return [Setting(signal, group.name, value) for group, live in groups for signal, value in _numbers(live)]


def parameters(optimizer: Optimizer, plan: Plan, signal: str = "") -> list[Samples]:
    """Each group's parameters."""
    return [
        Samples(signal, group.name, list(group.params), live["params"])
        for group, live in zip(plan.groups, optimizer.param_groups, strict=True)
    ]


def gradients(optimizer: Optimizer, plan: Plan, signal: str) -> list[Samples]:
    """The gradients there are."""
    found = []
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        there = [(n, p.grad) for n, p in zip(group.params, live["params"], strict=True) if p.grad is not None]
        found.append(Samples(signal, group.name, [name for name, _ in there], [_dense(grad) for _, grad in there]))
    return found


class State(NamedTuple):
    """What an optimizer keeps."""

    samples: list[Samples]
    """Every tensor that is no number, as `norm/<key>`: found, not listed, so that any optimizer has them. A key that is
    another signal's is `norm/state_<key>`."""
    skipped: dict[str, str]
    """Of what cannot be measured, by key, what it is."""
    mib: dict[str, float]
    """What each group's takes; on all ranks together, where they share it."""
    steps: list[Samples]
    """Of each group, the numbers of steps that are tensors, as `step`."""
    counts: dict[str, float]
    """Of each group, the largest of those that are numbers."""


def state(optimizer: Optimizer, plan: Plan) -> State:
    """Look through an optimizer's state."""
    found: dict[tuple[str, str], Samples] = {}
    skipped: dict[str, str] = {}
    mib = {}
    steps: list[Samples] = []
    counts: dict[str, float] = {}
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        size = 0
        counted = Samples("step", group.name, [], [])
        for name, parameter in zip(group.params, live["params"], strict=True):
            own = optimizer.state.get(parameter, {})
            step = own.get("step")
            if isinstance(step, Tensor):
                counted.parameters.append(name)
                counted.tensors.append(step)
            elif step is not None:
                counts[group.name] = max(counts.get(group.name, 0.0), float(step))
            for key, value in own.items():
                # Nearly all tensors are plain ones, and they are many.
                if type(value) is Tensor and value.dtype in _USUAL and key not in _TABLES:
                    size += value.nbytes
                    tensor = None if _is_number(key, value, parameter) else value
                else:
                    size += sum(num_bytes(leaf) for _, leaf in leaves({key: value}))
                    tensor = _measurable(key, own, parameter, skipped)
                if tensor is None:
                    continue
                samples = found.get((group.name, key))
                if samples is None:
                    signal = f"norm/state_{key}" if key in _TAKEN else f"norm/{key}"
                    samples = found[group.name, key] = Samples(signal, group.name, [], [])
                samples.parameters.append(name)
                samples.tensors.append(tensor)
        mib[group.name] = size / _MIB
        if counted.tensors:
            steps.append(counted)
    return State(list(found.values()), skipped, mib, steps, counts)


def _measurable(key: str, own: Mapping[str, Any], parameter: Tensor, skipped: dict[str, str]) -> Tensor | None:
    """What there is to measure under a key of a parameter's state."""
    value = own[key]
    if not isinstance(value, Tensor) or not value.numel() or is_part_of_a_code(key, own):
        return None
    if is_coded(value):
        whole = decoded(key, own)
        if whole is None:
            skipped[key] = f"{type(value).__name__} of {value.dtype}"
        return whole
    return value if is_float(value) and not _is_number(key, value, parameter) else None


def _is_number(key: str, value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor belongs to a parameter as a count does, and has not its shape by chance."""
    return value.ndim == 0 and (parameter.ndim > 0 or key in _SCALAR_STATES)


def is_second_moment(samples: Samples) -> bool:
    """Whether they are means of squares, the norm of which may leave the range of float32."""
    return samples.signal.removeprefix("norm/") in _SECOND_MOMENTS


def momentum(state: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    """A parameter's first moment."""
    found = (state[key] for key in _FIRST_MOMENTS if isinstance(state.get(key), Tensor))
    return next((tensor for tensor in found if tensor.shape == parameter.shape), None)


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
