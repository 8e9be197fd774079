"""Members that take two gradients a step, the parameters being elsewhere for one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from torch import Tensor

from ..base import ParamGroup
from ..bucket import real
from ..state_keys import MASTER
from .member import Member

AWAY, TAKEN = "away", "taken"
"""Numbers in a parameter's state: 1 while it is where the second gradient is taken; how many steps there were."""


class TwoGradients(Member):
    """Knows for all parameters at once which of a step's gradients it is: the second while any parameter is away.

    One that misses the second goes home without a step; so does every one before a closure is called, where a
    checkpoint was written in between.
    """

    home: ClassVar[str]
    """The buffer that holds where a parameter was before it went away."""
    _is_second = False

    def scalars(self, group: ParamGroup) -> Mapping[str, float]:
        return {AWAY: 0.0, TAKEN: 0.0}

    def where(self, group: ParamGroup) -> dict[str, Any]:
        """Whether parameters go `ahead` of themselves with this gradient or come `back`; and the numbers after it."""
        second = self._is_second
        back = second and bool(group[AWAY])
        return {"ahead": not second, "back": back, AWAY: 0.0 if second else 1.0, TAKEN: group[TAKEN] + back}

    def before_closure(self) -> None:
        self._go_home()

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        return self._one_of_two(groups)

    @contextmanager
    def _one_of_two(self, groups: Sequence[ParamGroup]) -> Iterator[None]:
        if all(param.grad is None for group in groups for param in group["params"]):
            yield
            return
        self._is_second = any(True for _ in self._away())
        yield
        if self._is_second:
            self._go_home()

    def _go_home(self) -> None:
        for param, state in self._away():
            steered = state.get(MASTER, param)
            real(steered).copy_(real(state[self.home]))
            param.copy_(steered)
            state[AWAY] = 0.0

    def _away(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for param in group["params"]:
                if self.state.get(param, {}).get(AWAY):
                    yield param, self.state[param]
