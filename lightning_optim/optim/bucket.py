"""Parameters that a rule can step with the same coefficients, and the executions of a rule over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .state_keys import MASTER
from .tensor_list import TensorList

# Tensor subclasses need not support every foreach function. On a CPU, lists take more memory and are faster only for
# many small tensors.
_PLAIN = (Tensor, torch.nn.Parameter)
_LIST_DEVICES = ("cuda", "xpu")


@dataclass(slots=True)
class Bucket:
    """Parameters of one group that share type, device, dtype, step count and scalar state.

    So each coefficient of the rule is one number. If every parameter has its own step count (experts that are rarely
    used), each has its own bucket: correct, but slow.
    """

    t: float
    """The number of this step, from 1."""
    scalars: Mapping[str, float]
    """The scalar state before this step."""
    params: list[Tensor] = field(default_factory=list)
    """What the rule writes: the parameters, or their masters."""
    params_of_masters: list[Tensor] = field(default_factory=list)
    """The parameters of which `params` holds the masters; empty if it holds none."""
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, scalars: Mapping[str, float]) -> None:
        """Count the step, unless a hook counts by itself, and store the next scalar state."""
        if counters := [state["step"] for state in self.states if isinstance(state["step"], Tensor)]:
            # With `alpha` the 1 is wrapped into a tensor once, not for each counter.
            torch._foreach_add_(counters, scalar(1.0), alpha=1.0)
        if scalars:
            for state in self.states:
                state.update(scalars)

    def for_each(self, function: Callable[[dict[str, Any], Tensor, Tensor], None]) -> None:
        """Call `function(state, param, grad)` for each parameter in turn."""
        for state, param, grad in zip(self.states, self.params, self.grads, strict=True):
            function(state, param, grad)

    def run(
        self, function: Callable[[Any, Any, Sequence[Any]], None], buffers: Sequence[str], *, foreach: bool | None
    ) -> None:
        """Call `function(param, grad, buffers)`: once with `TensorList`s, or once per parameter with tensors.

        Args:
            function: a rule and the steps around it.
            buffers: names of the state tensors it takes.
            foreach: whether to use lists; None: where that is faster.
        """
        # A compiled execution would be a third branch, with the same arguments.
        if self._prefers_lists() if foreach is None else foreach:
            buffer_lists = [TensorList([real(state[name]) for state in self.states]) for name in buffers]
            function(TensorList(map(real, self.params)), TensorList(map(real, self.grads)), buffer_lists)
        else:
            self.for_each(lambda state, p, g: function(real(p), real(g), [real(state[name]) for name in buffers]))

    def write_back(self) -> None:
        """Round the masters into their parameters."""
        if self.params_of_masters:
            TensorList(self.params_of_masters).copy_(TensorList(self.params))

    def _prefers_lists(self) -> bool:
        return self.params[0].device.type in _LIST_DEVICES and type(self.params[0]) in _PLAIN


def build_buckets(
    params: Iterable[Tensor], states: Mapping[Tensor, dict[str, Any]], scalars: Sequence[str]
) -> list[Bucket]:
    """The parameters that have a gradient, in buckets, each in the order of `params`.

    Args:
        params: the parameters of one group.
        states: the optimizer's state, initialized for each parameter with a gradient.
        scalars: names of the numbers in a state.
    """
    buckets: dict[Any, Bucket] = {}
    for param in params:
        if param.grad is None or not param.numel():  # the mean of an empty tensor is NaN
            continue
        state = states[param]
        t, values = float(state["step"]) + 1, tuple(state[name] for name in scalars)
        key = (type(param), param.device, param.dtype, param.grad.dtype, t, values, MASTER in state)
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = Bucket(t, dict(zip(scalars, values, strict=True)))
        if MASTER in state:
            bucket.params.append(state[MASTER])
            bucket.params_of_masters.append(param)
            bucket.grads.append(param.grad.to(state[MASTER].dtype))
        else:
            bucket.params.append(param)
            bucket.grads.append(param.grad)
        bucket.states.append(state)
    return list(buckets.values())


def scalar(value: float) -> Tensor:
    """A 0-d tensor as torch's optimizers store their counters: at least float32, because 16 bits count to 256 only.

    On the CPU, whatever the default device is: it is read at every step.
    """
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.tensor(value, dtype=dtype, device="cpu")


def real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of real numbers, as torch's optimizers treat it; else the tensor itself."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
