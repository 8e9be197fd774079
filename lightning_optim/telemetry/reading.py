"""What can be measured of an optimizer: its groups' settings, and its parameters, gradients and state tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from .quantized import dequantize, is_quantization_table, is_quantized, num_bytes
from .state_leaves import is_float_tensor, state_leaves

# State that is one number for a parameter, not a buffer, even where the parameter is a scalar too.
_SCALAR_STATE = ("step", "mu_product", "eta", "mu")
_FIRST_MOMENTS = ("exp_avg", "momentum_buffer")
SECOND_MOMENTS = (
    *("exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var", "square_avg", "acc_delta", "sum"),
    *("variance", "row_var", "col_var"),
)
_RESERVED_SIGNALS = ("grad", "grad_unclipped", "param", "update")  # `norm/<name>` of these is not of a buffer
_UNQUANTIZED_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_QUANTIZATION_KEYS = ("qmap1", "qmap2", "absmax1", "absmax2")  # float tables, as bitsandbytes numbers them
_MIB = 1 << 20


class SignalTensors(NamedTuple):
    """The tensors of a group that are reduced to one signal."""

    signal: str
    group: str
    parameters: list[str]
    """The clean name of the parameter that each tensor belongs to."""
    tensors: list[Tensor]


class Setting(NamedTuple):
    """A hyperparameter as a param group has it now; a tensor, if the optimizer has it so, may be on a device."""

    signal: str
    group: str
    value: float | Tensor


class StateTensors(NamedTuple):
    """The state of an optimizer."""

    buffers: list[SignalTensors]
    """Every tensor that is not a single number, as `norm/<key>`. Found, not listed, so that any optimizer's are
    measured. A key that is the name of another signal becomes `norm/state_<key>`."""
    skipped: dict[str, str]
    """By key, what the state is that cannot be measured."""
    mib: dict[str, float]
    """By group, the size of the state; over all ranks, where it is sharded."""
    steps: list[SignalTensors]
    """Step counts that are tensors, as `step`, for each group that has them."""
    step_counts: dict[str, float]
    """By group, the largest of the step counts that are Python numbers."""


def read_settings(optimizer: Optimizer, plan: Plan) -> list[Setting]:
    """lr, weight decay, momentum or betas of each group."""
    groups = zip(plan.groups, optimizer.param_groups, strict=True)
    return [
        Setting(signal, group.name, value)
        for group, param_group in groups
        for signal, value in _group_settings(param_group)
    ]


def read_params(optimizer: Optimizer, plan: Plan, signal: str) -> list[SignalTensors]:
    """The parameters of each group that have a norm: integer ones, such as quantized weights, do not train either."""
    signals = []
    for group, param_group in zip(plan.groups, optimizer.param_groups, strict=True):
        pairs = [pair for pair in zip(group.params, param_group["params"], strict=True) if is_float_tensor(pair[1])]
        signals.append(SignalTensors(signal, group.name, [name for name, _ in pairs], [tensor for _, tensor in pairs]))
    return signals


def read_gradients(optimizer: Optimizer, plan: Plan, signal: str) -> list[SignalTensors]:
    """The gradients of each group, of those parameters that have one."""
    signals = []
    for group, param_group in zip(plan.groups, optimizer.param_groups, strict=True):
        grads = [parameter.grad for parameter in param_group["params"]]
        names = [name for name, grad in zip(group.params, grads, strict=True) if grad is not None]
        # A sparse gradient's values, duplicate rows summed: nothing else counts towards its norm.
        values = [grad.coalesce().values() if grad.is_sparse else grad for grad in grads if grad is not None]
        signals.append(SignalTensors(signal, group.name, names, values))
    return signals


def read_state(optimizer: Optimizer, plan: Plan) -> StateTensors:
    """The state of every parameter, sorted by group and key."""
    buffers: dict[tuple[str, str], SignalTensors] = {}
    skipped: dict[str, str] = {}
    mib = {}
    steps: list[SignalTensors] = []
    step_counts: dict[str, float] = {}
    for group, param_group in zip(plan.groups, optimizer.param_groups, strict=True):
        size = 0
        group_steps = SignalTensors("step", group.name, [], [])
        for name, parameter in zip(group.params, param_group["params"], strict=True):
            state = optimizer.state.get(parameter, {})
            step = state.get("step")
            if isinstance(step, Tensor):
                group_steps.parameters.append(name)
                group_steps.tensors.append(step)
            elif step is not None:
                step_counts[group.name] = max(step_counts.get(group.name, 0.0), float(step))
            for key, value in state.items():
                # A fast path: nearly all tensors are plain ones, and there are many.
                if type(value) is Tensor and value.dtype in _UNQUANTIZED_DTYPES and key not in _QUANTIZATION_KEYS:
                    size += value.nbytes
                    tensor = None if _is_scalar_state(key, value, parameter) else value
                else:
                    size += sum(num_bytes(leaf) for _, leaf in state_leaves({key: value}))
                    tensor = _find_measurable(key, state, parameter, skipped)
                if tensor is None:
                    continue
                buffer = buffers.get((group.name, key))
                if buffer is None:
                    buffer = buffers[group.name, key] = SignalTensors(buffer_signal(key), group.name, [], [])
                buffer.parameters.append(name)
                buffer.tensors.append(tensor)
        mib[group.name] = size / _MIB
        if group_steps.tensors:
            steps.append(group_steps)
    return StateTensors(list(buffers.values()), skipped, mib, steps, step_counts)


def buffer_signal(key: str) -> str:
    """The signal of a state buffer."""
    return f"norm/state_{key}" if key in _RESERVED_SIGNALS else f"norm/{key}"


def is_second_moment(buffer: SignalTensors) -> bool:
    """Whether the tensors are averages of squares, whose norm may leave the range of float32."""
    return buffer.signal.removeprefix("norm/") in SECOND_MOMENTS


def find_momentum(state: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    """A parameter's first moment, if its state has one of its shape."""
    moments = (state[key] for key in _FIRST_MOMENTS if isinstance(state.get(key), Tensor))
    return next((tensor for tensor in moments if tensor.shape == parameter.shape), None)


def _group_settings(param_group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("lr", "weight_decay", "momentum"):
        if isinstance(param_group.get(key), (int, float, Tensor)):
            yield key, param_group[key]
    betas = param_group.get("betas")
    if isinstance(betas, (list, tuple)):
        for number, beta in enumerate(betas, start=1):
            yield f"beta{number}", beta


def _find_measurable(key: str, state: Mapping[str, Any], parameter: Tensor, skipped: dict[str, str]) -> Tensor | None:
    """The tensor to measure under a key of a parameter's state, if any; an unknown format is added to `skipped`."""
    value = state[key]
    if not isinstance(value, Tensor) or not value.numel() or is_quantization_table(key, state):
        return None
    if is_quantized(value):
        numbers = dequantize(key, state)
        if numbers is None:
            skipped[key] = f"{type(value).__name__} of {value.dtype}"
        return numbers
    return value if is_float_tensor(value) and not _is_scalar_state(key, value, parameter) else None


def _is_scalar_state(key: str, value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor is one number for its parameter, such as a step count, and not a buffer of a scalar one."""
    return value.ndim == 0 and (parameter.ndim > 0 or key in _SCALAR_STATE)
