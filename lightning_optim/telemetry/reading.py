"""What there is to see of an optimizer: its groups' settings, and every tensor that can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from ..inspection.measure import is_float, leaves
from .quantized import decoded, is_coded, is_part_of_a_code, num_bytes

# Their state is a number that belongs to a parameter, not a buffer.
_SCALAR_STATES = ("step", "mu_product", "eta", "mu")
_FIRST_MOMENTS = ("exp_avg", "momentum_buffer")
_SECOND_MOMENTS = (
    *("exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var", "square_avg", "acc_delta", "sum"),
    *("variance", "row_var", "col_var"),
)
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
    """lr, weight decay, momentum or betas of each group, and the steps of each of its parameters."""
    found = []
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        found += [Setting(signal, group.name, value) for signal, value in _numbers(live)]
        states = [optimizer.state.get(parameter, {}) for parameter in live["params"]]
        found += [Setting("step", group.name, state["step"]) for state in states if "step" in state]
    return found


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


def buffers(optimizer: Optimizer, plan: Plan) -> tuple[list[Samples], dict[str, str]]:
    """Every tensor of the state that is no number: found, not listed, so that any optimizer has them.

    Returns:
        The tensors, as `norm/<key>`; and of what cannot be measured, by key, what it is.
    """
    found: dict[tuple[str, str], Samples] = {}
    skipped = {}
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        for name, parameter in zip(group.params, live["params"], strict=True):
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                if not isinstance(value, Tensor) or not value.numel() or is_part_of_a_code(key, state):
                    continue
                if is_coded(value):
                    whole = decoded(key, state)
                    if whole is None:
                        skipped[key] = f"{type(value).__name__} of {value.dtype}"
                        continue
                    value = whole
                elif not is_float(value) or (value.ndim == 0 and (parameter.ndim > 0 or key in _SCALAR_STATES)):
                    continue
                samples = found.get((group.name, key))
                if samples is None:
                    samples = found[group.name, key] = Samples(f"norm/{key}", group.name, [], [])
                samples.parameters.append(name)
                samples.tensors.append(value)
    return list(found.values()), skipped


def is_second_moment(samples: Samples) -> bool:
    """Whether they are means of squares, the norm of which may leave the range of float32."""
    return samples.signal.removeprefix("norm/") in _SECOND_MOMENTS


def momentum(state: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    """A parameter's first moment."""
    found = (state[key] for key in _FIRST_MOMENTS if isinstance(state.get(key), Tensor))
    return next((tensor for tensor in found if tensor.shape == parameter.shape), None)


def state_mib(optimizer: Optimizer, plan: Plan) -> dict[str, float]:
    """What each group's state takes, in MiB; on all ranks together, where they share it."""
    found = {}
    for group, live in zip(plan.groups, optimizer.param_groups, strict=True):
        states = (optimizer.state.get(parameter, {}) for parameter in live["params"])
        found[group.name] = sum(num_bytes(leaf) for state in states for _, leaf in leaves(state)) / _MIB
    return found


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
