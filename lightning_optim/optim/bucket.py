"""Parameters that take the same numbers, and the ways to run a rule over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .state_keys import MASTER
from .tensor_list import TensorList

# Subclasses of tensors do not promise to have every foreach function; on a CPU lists take more memory, and are faster
# for many small tensors only.
_PLAIN = (Tensor, torch.nn.Parameter)
_LIST_DEVICES = ("cuda", "xpu")

HALF_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(slots=True)
class Bucket:
    """Parameters of one group, of one type, device and dtype, at one step count and with equal scalar state.

    So each coefficient of the rule is one number. Where every parameter has a step count of its own (experts that are
    rarely used), every one has a bucket of its own: right, but slow.
    """

    t: float
    """Which step this is; the first is 1."""
    scalars: Mapping[str, float]
    """The scalar state before it."""
    params: list[Tensor] = field(default_factory=list)
    """What the rule writes: the parameters, or their masters."""
    mastered: list[Tensor] = field(default_factory=list)
    """Parameters that have one."""
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, scalars: Mapping[str, float]) -> None:
        """Count the step, unless a hook does, and store what becomes of the scalar state."""
        if counters := [state["step"] for state in self.states if isinstance(state["step"], Tensor)]:
            # With `alpha` the 1 is wrapped into a tensor once, not for each counter.
            torch._foreach_add_(counters, scalar(1.0), alpha=1.0)
        if scalars:
            for state in self.states:
                state.update(scalars)

    def each(self, work: Callable[[dict[str, Any], Tensor, Tensor], None]) -> None:
        """Call `work(state, param, grad)` for one after the other."""
        for state, param, grad in zip(self.states, self.params, self.grads, strict=True):
            work(state, param, grad)

    def run(
        self, work: Callable[[Any, Any, Sequence[Any]], None], buffers: Sequence[str], *, foreach: bool | None
    ) -> None:
        """Call `work(param, grad, buffers)`, once with `TensorList`s or for each parameter with tensors.

        Args:
            work: a rule, and what stands around it.
            buffers: names of the state tensors it takes.
            foreach: with lists; None: where that is faster.
        """
        # A compiled execution would be a third way, with these very arguments.
        if self._prefers_lists() if foreach is None else foreach:
            held = [TensorList([real(state[name]) for state in self.states]) for name in buffers]
            work(TensorList(map(real, self.params)), TensorList(map(real, self.grads)), held)
        else:
            self.each(lambda state, p, g: work(real(p), real(g), [real(state[name]) for name in buffers]))

    def write_back(self) -> None:
        """Round the masters into their parameters."""
        if self.mastered:
            TensorList(self.mastered).copy_(TensorList(self.params))

    def _prefers_lists(self) -> bool:
        return self.params[0].device.type in _LIST_DEVICES and type(self.params[0]) in _PLAIN


def scalar(value: float) -> Tensor:
    """A 0-d tensor as torch's optimizers keep their counters: in float32 at least, or they would stop at 256.

    On the CPU, whatever the default device is, since it is read at every step.
    """
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.tensor(value, dtype=dtype, device="cpu")


def gather(params: Iterable[Tensor], states: Mapping[Tensor, dict[str, Any]], scalars: Sequence[str]) -> list[Bucket]:
    """The parameters that have a gradient, in buckets, each in the order of `params`.

    Args:
        params: of one group.
        states: the optimizer's; that of each parameter with a gradient is initialised.
        scalars: names of the numbers in a state.
    """
    buckets: dict[Any, Bucket] = {}
    for param in params:
        if param.grad is None or not param.numel():  # a mean over none is not a number
            continue
        state = states[param]
        t, values = float(state["step"]) + 1, tuple(state[name] for name in scalars)
        key = (type(param), param.device, param.dtype, param.grad.dtype, t, values, MASTER in state)
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = Bucket(t, dict(zip(scalars, values, strict=True)))
        if MASTER in state:
            bucket.params.append(state[MASTER])
            bucket.mastered.append(param)
            bucket.grads.append(param.grad.to(state[MASTER].dtype))
        else:
            bucket.params.append(param)
            bucket.grads.append(param.grad)
        bucket.states.append(state)
    return list(buckets.values())


def real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of real numbers, as torch's optimizers take it."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
