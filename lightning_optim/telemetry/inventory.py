"""The tensors of an optimizer that a logged step measures, cached until one of them is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import format_names
from ..groups.plan import Plan
from .reading import SignalTensors, StateTensors, is_second_moment, read_params, read_state
from .tensor_batch import TensorBatch

SignalParameters = tuple[tuple[str, tuple[str, ...]], ...]


class SignalBatch:
    """Tensors of several signals and groups that are reduced together.

    Args:
        signals: the tensors by signal and group.
    """

    def __init__(self, signals: Sequence[SignalTensors]) -> None:
        self.signals = signals
        self.tensors = TensorBatch([tensor for signal in signals for tensor in signal.tensors])
        sizes = iter(self.tensors.sizes)
        self.sizes = [list(islice(sizes, len(signal.tensors))) for signal in signals]
        """For each of the signals, the number of elements of each of its tensors."""
        self.places: tuple[Any, Any] | None = None
        """Of what `FoundSums` has found last, where it belongs."""

    @cached_property
    def parameters(self) -> SignalParameters:
        """For each of the signals, its name and those of its parameters."""
        return tuple([(signal.signal, tuple(signal.parameters)) for signal in self.signals])


class Contents(NamedTuple):
    """The tensors that an optimizer holds."""

    params: list[SignalTensors]
    state: StateTensors
    params_and_buffers: SignalBatch
    """Parameters, and state buffers except second moments."""
    second_moments: SignalBatch
    steps: SignalBatch
    """Step counts that are on a device, or sharded."""
    steps_on_host: list[SignalTensors]
    """The others, which can be read at no cost."""
    unmeasured: list[str]
    """What has no norm, in sentences: integer parameters, and state in an unknown format."""


class _Summed(NamedTuple):
    """What kernels have summed in a step."""

    tables: object
    contents: Contents
    gradients: SignalBatch
    counters: list[Any]
    num_keys: list[int]


class Inventory:
    """The contents of an optimizer, cached for as long as its parameters and state are the same tensors.

    Args:
        optimizer: the optimizer to measure.
        plan: its groups.
    """

    def __init__(self, optimizer: Optimizer, plan: Plan) -> None:
        self.optimizer, self.plan = optimizer, plan
        self._contents: Contents | None = None
        # What the cache is valid for: every object in groups and state, and the memory addresses of the tensors.
        self._objects: list[Any] = []
        self._tensors: list[Tensor] = []
        self._addresses: list[int] = []
        self._summed: _Summed | None = None

    def names(self) -> dict[int, str]:
        """The name of each parameter, by its `id`."""
        names = chain.from_iterable(group.params for group in self.plan.groups)
        params = chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        return dict(zip(map(id, params), names, strict=True))

    def contents(self) -> Contents:
        """The tensors that the optimizer holds now."""
        objects = self._current_objects()
        if self._contents is None or not self._is_valid_for(objects):
            self._contents = self._collect()
            self._set_valid_for(objects, self._contents)
        return self._contents

    def summed_by(self, tables: object) -> tuple[Contents, SignalBatch] | None:
        """The contents and the gradients, if these are what kernels have summed in the step: all of it, as before.

        Kernels see themselves whether tensors are the same ones where they were. So only the rest of the state can
        have changed: step counts, or keys that somebody has added.

        Args:
            tables: of `FoundSums`.
        """
        summed = self._summed
        if summed is None or summed.tables != tables:
            return None
        counters, num_keys = self._read_rest_of_state()
        is_same = all(map(is_, counters, summed.counters)) and num_keys == summed.num_keys
        return (summed.contents, summed.gradients) if is_same else None

    def set_summed_by(self, tables: object, contents: Contents, gradients: SignalBatch) -> None:
        """Store that kernels have summed all of these tensors."""
        self._summed = _Summed(tables, contents, gradients, *self._read_rest_of_state())

    def _read_rest_of_state(self) -> tuple[list[Any], list[int]]:
        """The step count of each state, and its number of keys."""
        states = self.optimizer.state.values()
        return [state.get("step") for state in states], list(map(len, states))

    def _current_objects(self) -> list[Any]:
        """Every parameter, every state and every value in a state."""
        states = list(self.optimizer.state.values())
        values = chain.from_iterable(state.values() if isinstance(state, dict) else (state,) for state in states)
        return [*chain.from_iterable(group["params"] for group in self.optimizer.param_groups), *states, *values]

    def _is_valid_for(self, objects: list[Any]) -> bool:
        """Whether the objects are the cached ones. Addresses count too: a tensor's `data` may be replaced."""
        same_objects = len(objects) == len(self._objects) and all(map(is_, objects, self._objects))
        return same_objects and self._addresses == list(map(Tensor.data_ptr, self._tensors))

    def _set_valid_for(self, objects: list[Any], contents: Contents) -> None:
        """Store what the cache is valid for: nothing, unless collecting again would find these very tensors."""
        known = set(map(id, objects))
        batches = (contents.params_and_buffers, contents.second_moments)
        found = [tensor for batch in batches for signal in batch.signals for tensor in signal.tensors]
        is_plain = all(batch.tensors.is_plain for batch in (*batches, contents.steps))
        self._objects = objects if is_plain and all(id(tensor) in known for tensor in found) else []
        self._tensors = [value for value in self._objects if isinstance(value, Tensor)]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))

    def _collect(self) -> Contents:
        params = read_params(self.optimizer, self.plan, "norm/param")
        state = read_state(self.optimizer, self.plan)
        second_moments = [buffer for buffer in state.buffers if is_second_moment(buffer)]
        others = [buffer for buffer in state.buffers if not is_second_moment(buffer)]
        steps_on_host = [signal for signal in state.steps if _is_on_host(signal)]
        return Contents(
            params=params,
            state=state,
            params_and_buffers=SignalBatch([*params, *others]),
            second_moments=SignalBatch(second_moments),
            steps=SignalBatch([signal for signal in state.steps if not _is_on_host(signal)]),
            steps_on_host=steps_on_host,
            unmeasured=self._describe_unmeasured(params, state),
        )

    def _describe_unmeasured(self, params: Sequence[SignalTensors], state: StateTensors) -> list[str]:
        measured = {name for signal in params for name in signal.parameters}
        integers = [name for group in self.plan.groups for name in group.params if name not in measured]
        lines = [f"the state '{key}' is not measured: it is a {kind}" for key, kind in state.skipped.items()]
        if integers:
            lines.append(f"integer parameters are not measured: {format_names(integers, 3)}")
        return lines


def _is_on_host(signal: SignalTensors) -> bool:
    """Whether the tensors are plain ones on the CPU."""
    return all(type(tensor) is Tensor and tensor.device.type == "cpu" for tensor in signal.tensors)
