"""What there is to measure of an optimizer, looked up where it has changed, and checked where it has not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
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
    steps: Bundle
    """`state.steps` that are tensors."""


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
        optimizer = self.optimizer
        states = list(optimizer.state.values())
        held = [value for own in states for value in (own.values() if isinstance(own, dict) else (own,))]
        return [parameter for group in optimizer.param_groups for parameter in group["params"]] + states + held

    def _holds(self, seen: list[Any]) -> bool:
        """Whether all of it is the same, and at the same place: a tensor's `data` may be replaced."""
        alike = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        return alike and self._places == _places(seen)

    def _keep(self, seen: list[Any], look: Look) -> None:
        """Remember what was seen, where looking again would find these very tensors."""
        known = set(map(id, seen))
        found = [tensor for samples in (*look.plain.samples, *look.second.samples) for tensor in samples.tensors]
        whole = look.plain.bundle.is_plain and look.second.bundle.is_plain and look.steps.is_plain
        fixed = whole and all(id(tensor) in known for tensor in found)
        self._seen, self._places = (seen, _places(seen)) if fixed else ([], [])

    def _anew(self) -> Look:
        params = parameters(self.optimizer, self.plan, "norm/param")
        held = state(self.optimizer, self.plan)
        second = [samples for samples in held.samples if is_second_moment(samples)]
        plain = [samples for samples in held.samples if not is_second_moment(samples)]
        steps = Bundle([value for _, value in held.steps if isinstance(value, Tensor)])
        return Look(params, held, Collection([*params, *plain]), Collection(second), steps)


def _places(seen: list[Any]) -> list[int]:
    return [value.data_ptr() for value in seen if isinstance(value, Tensor)]
