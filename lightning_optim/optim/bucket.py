"""Parameters that a rule can step with the same coefficients, and the executions of a rule over them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from .fingerprint import PLAIN_TYPES
from .fused.requested_sums import argument_name
from .known_group import KnownGroup, find_kinds
from .real_view import real
from .state_keys import MASTER
from .step_counters import add_one, are_equal, find_addresses
from .tensor_list import TensorList

# Tensor subclasses need not support every foreach function. On a CPU, lists take more memory and are faster only for
# many small tensors.
_LIST_DEVICES = ("cuda", "xpu")
T = TypeVar("T")


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
    counters: list[Any] = field(default_factory=list)
    """The step counters."""
    counter_addresses: array[int] | None = None
    """Where they are, if they can be increased there."""
    layout: tuple[KnownGroup, Sequence[int]] | None = None
    """Equal in two steps only if its tensors are the same where they were, and gradients like those that were there."""
    is_rounded: bool = False
    """Whether a kernel has rounded the masters into their parameters."""

    @property
    def owners(self) -> list[Tensor]:
        """The parameters."""
        return self.params_of_masters or self.params

    def advance(self, scalars: Mapping[str, float]) -> None:
        """Count the step, unless a hook counts by itself, and store the next scalar state."""
        if self.counter_addresses:
            add_one(self.counters, self.counter_addresses)
        elif counters := [counter for counter in self.counters if isinstance(counter, Tensor)]:
            # With `alpha` the 1 is wrapped into a tensor once, not for each counter.
            torch._foreach_add_(counters, scalar(1.0), alpha=1.0)
        if scalars:
            for state in self.states:
                state.update(scalars)

    def for_each(self, function: Callable[[dict[str, Any], Tensor, Tensor], None]) -> None:
        """Call `function(state, param, grad)` for each parameter in turn."""
        for state, param, grad in zip(self.states, self.params, self._wide_grads(), strict=True):
            function(state, param, grad)

    def run_fused(
        self, execution: Callable[..., list[int]], function: Callable[..., None], buffers: Sequence[str]
    ) -> Bucket:
        """Call `function(param, grad, buffers)` by kernels; what they leave comes back as a bucket.

        Args:
            execution: runs a function over tensors by name, and returns the positions of those that it has not taken.
            function: a rule and the steps around it.
            buffers: names of the state tensors it takes.
        """
        columns = {
            "p": self.params,
            "g": self.grads,
            **{argument_name(name): [state[name] for state in self.states] for name in buffers},
        }
        if self.params_of_masters:
            function, columns["rounded"] = partial(_round_after, function), self.params_of_masters
        skipped = execution(function, columns)
        self.is_rounded = not skipped
        rest = Bucket(self.t, self.scalars)
        for i in skipped:
            rest.params.append(self.params[i])
            rest.params_of_masters += self.params_of_masters[i : i + 1]
            rest.grads.append(self.grads[i])
            rest.states.append(self.states[i])
        return rest

    def run(
        self,
        function: Callable[[Any, Any, Sequence[Any]], None],
        buffers: Sequence[str],
        *,
        foreach: bool | None,
        at_once: int | None = None,
    ) -> None:
        """Call `function(param, grad, buffers)`: with `TensorList`s, or once per parameter with tensors.

        Args:
            function: a rule and the steps around it.
            buffers: names of the state tensors it takes.
            foreach: whether to use lists; None: where that is faster.
            at_once: how many tensors a list has at most; None: all.
        """
        if prefers_lists(self.params[0]) if foreach is None else foreach:
            columns = [[real(state[name]) for state in self.states] for name in buffers]
            columns = [list(map(real, self.params)), list(map(real, self._wide_grads())), *columns]
            for start in range(0, len(self.params), at_once or len(self.params)):
                stop = start + at_once if at_once else None
                p, g, *rest = (TensorList(column[start:stop]) for column in columns)
                function(p, g, rest)
        else:
            self.for_each(lambda state, p, g: function(real(p), real(g), [real(state[name]) for name in buffers]))

    def write_back(self) -> None:
        """Round the masters into their parameters."""
        if self.params_of_masters and not self.is_rounded:
            TensorList(self.params_of_masters).copy_(TensorList(self.params))

    def _wide_grads(self) -> Iterable[Tensor]:
        """The gradients in the dtype of what the rule writes, converted only when they are needed."""
        if not self.params_of_masters:
            return self.grads
        return (grad.to(master.dtype) for grad, master in zip(self.grads, self.params, strict=True))


def prefers_lists(param: Tensor) -> bool:
    """Whether lists of tensors like this one are stepped faster than one after the other."""
    return param.device.type in _LIST_DEVICES and type(param) in PLAIN_TYPES


def build_buckets(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    scalars: Sequence[str],
    layouts: Sequence[Hashable] = (),
    known: KnownGroup | None = None,
) -> list[Bucket]:
    """Parameters of one group in buckets, each in the order of `params`.

    Args:
        params: with at least one element: the mean of an empty tensor is NaN.
        grads: theirs.
        states: theirs, initialized.
        scalars: names of the numbers in a state.
        layouts: what else those of a bucket must share, by parameter; empty for nothing.
        known: what is known about all of these.
    """
    # Column by column, which for many parameters takes a third of the time of a loop over them.
    counters = [state["step"] for state in states]
    addresses = known.find_counters(counters) if known else find_addresses(counters)
    if addresses and are_equal(addresses):
        counts = [counters[0].item()] * len(counters)
    else:
        counts = [step.item() if type(step) is Tensor else float(step) for step in counters]
    numbers = [[state[name] for state in states] for name in scalars]
    kinds = known.kinds if known else find_kinds(params, grads, states)
    columns = [counts, *numbers, *kinds, *([layouts] if layouts else [])]
    buckets = []
    for chosen in _positions_by_key(columns):
        first = chosen[0]
        bucket = Bucket(counts[first] + 1, {name: column[first] for name, column in zip(scalars, numbers, strict=True)})
        bucket.params, bucket.grads = _pick(params, chosen), _pick(grads, chosen)
        bucket.states = _pick(states, chosen)
        if MASTER in states[first]:
            bucket.params, bucket.params_of_masters = [state[MASTER] for state in bucket.states], bucket.params
        bucket.counters = _pick(counters, chosen)
        if addresses:
            is_all = len(chosen) == len(addresses)
            bucket.counter_addresses = addresses if is_all else array("q", [addresses[i] for i in chosen])
        bucket.layout = (known, chosen) if known else None
        buckets.append(bucket)
    return buckets


def _positions_by_key(columns: Sequence[Sequence[Any]]) -> Iterable[Sequence[int]]:
    """The positions of equal rows in columns of one length."""
    first, *_ = columns
    if not first or all(column.count(column[0]) == len(column) for column in columns):  # nearly always, and fast
        return [range(len(first))] if first else []
    positions: dict[Any, list[int]] = {}
    for i, key in enumerate(zip(*columns, strict=True)):
        positions.setdefault(key, []).append(i)
    return positions.values()


def _pick(column: Sequence[T], positions: Sequence[int]) -> list[T]:
    """The values at some positions, increasing: often at all of them, and there may be very many."""
    return list(column) if len(positions) == len(column) else [column[i] for i in positions]


def _round_after(function: Callable[..., None], p: Any, g: Any, buffers: Sequence[Any]) -> None:
    """Call a function, and round the master that it writes into the last buffer: into the parameter."""
    *buffers, rounded = buffers
    function(p, g, buffers)
    rounded.copy_(p)


def scalar(value: float) -> Tensor:
    """A 0-d tensor as torch's optimizers store their counters: at least float32, because 16 bits count to 256 only.

    On the CPU, whatever the default device is: it is read at every step.
    """
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.tensor(value, dtype=dtype, device="cpu")
