"""`TwoGradients`: a base for members that take two gradients a step, one of them at other parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from ..base import ParamGroup
from ..real_view import real
from ..state_keys import MASTER
from .member import Member

AWAY = "away"
"""State key: 1 while the parameter is where the second gradient is taken, else 0."""
TAKEN = "taken"
"""State key: the number of steps taken."""


class TwoGradients(Member):
    """A member that moves its parameters away for one of the two gradients of a step.

    Which gradient comes next is decided for all parameters together: the second, while any parameter is moved away. A
    parameter that misses the second gradient is restored without a step. So are all of them before a closure is called,
    for a checkpoint may have been written between the two gradients.

    State:
        away: 1 between the two gradients of a step, else 0; a float.
        taken: number of steps taken; a float.
    """

    origin_buffer: ClassVar[str]
    """The buffer that holds the parameter from before it was moved away."""
    _is_second = False

    def scalars(self, group: ParamGroup) -> Mapping[str, float]:
        return {AWAY: 0.0, TAKEN: 0.0}

    def advance_phase(self, group: ParamGroup) -> dict[str, Any]:
        """Whether this gradient moves a parameter away or back, and the next value of each scalar."""
        is_second = self._is_second
        moves_back = is_second and bool(group[AWAY])
        scalars = {AWAY: 0.0 if is_second else 1.0, TAKEN: group[TAKEN] + moves_back}
        return {"moves_away": not is_second, "moves_back": moves_back, **scalars}

    def before_closure(self) -> None:
        self._restore_params()

    @contextmanager
    def step_scope(self, groups: Sequence[ParamGroup]) -> Iterator[None]:
        if all(param.grad is None for group in groups for param in group["params"]):
            yield
            return
        self._is_second = any(True for _ in self._params_away())
        yield
        if self._is_second:
            self._restore_params()

    def _restore_params(self) -> None:
        for param, state in self._params_away():
            updated = state.get(MASTER, param)
            real(updated).copy_(real(state[self.origin_buffer]))
            param.copy_(updated)
            state[AWAY] = 0.0

    def _params_away(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for param in group["params"]:
                if self.state.get(param, {}).get(AWAY):
                    yield param, self.state[param]
