"""What there is to measure of an optimizer, looked up where it has changed, and checked where it has not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from .bundle import Bundle
from .reading import Samples, State, is_second_moment, parameters, state


class Collection:
    """Samples, and their tensors one after the other.

    Args:
        samples: by signal and group.
    """

    def __init__(self, samples: Sequence[Samples]) -> None:
        self.samples = samples
        self.bundle = Bundle([tensor for each in samples for tensor in each.tensors])
        sizes = iter(self.bundle.sizes)
        self.sizes = [list(islice(sizes, len(each.tensors))) for each in samples]
        """Of each of the samples, the elements of its tensors."""


class Look(NamedTuple):
    """What is there now."""

    params: list[Samples]
    state: State
    plain: Collection
    """Parameters, and state but second moments."""
    second: Collection
    """Second moments."""
    steps: Collection
    """`state.steps`."""


class Inventory:
    """A look through an optimizer's groups and state, kept as long as it holds.

    Args:
        optimizer: whose.
        plan: its groups.
    """

    def __init__(self, optimizer: Optimizer, plan: Plan) -> None:
        self.optimizer, self.plan = optimizer, plan
        self._look: Look | None = None
        self._seen: list[Any] = []
        self._tensors: list[Tensor] = []
        self._places: list[int] = []

    def look(self) -> Look:
        """What there is."""
        seen = self._live()
        if self._look is None or not self._holds(seen):
            self._look = self._anew()
            self._keep(seen, self._look)
        return self._look

    def _live(self) -> list[Any]:
        """Every parameter, and everything in every state."""
        states = list(self.optimizer.state.values())
        held = chain.from_iterable(own.values() if isinstance(own, dict) else (own,) for own in states)
        return [*chain.from_iterable(group["params"] for group in self.optimizer.param_groups), *states, *held]

    def _holds(self, seen: list[Any]) -> bool:
        """Whether all of it is the same, and at the same place: a tensor's `data` may be replaced."""
        alike = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        return alike and self._places == list(map(Tensor.data_ptr, self._tensors))

    def _keep(self, seen: list[Any], look: Look) -> None:
        """Remember what was seen, where looking again would find these very tensors."""
        known = set(map(id, seen))
        found = [tensor for samples in (*look.plain.samples, *look.second.samples) for tensor in samples.tensors]
        whole = look.plain.bundle.is_plain and look.second.bundle.is_plain and look.steps.bundle.is_plain
        self._seen = seen if whole and all(id(tensor) in known for tensor in found) else []
        self._tensors = [value for value in self._seen if isinstance(value, Tensor)]
        self._places = list(map(Tensor.data_ptr, self._tensors))

    def _anew(self) -> Look:
        params = parameters(self.optimizer, self.plan, "norm/param")
        held = state(self.optimizer, self.plan)
        second = [samples for samples in held.samples if is_second_moment(samples)]
        plain = [samples for samples in held.samples if not is_second_moment(samples)]
        return Look(params, held, Collection([*params, *plain]), Collection(second), Collection(held.steps))
