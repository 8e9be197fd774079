"""A view of the param groups that follow one curve, for the scheduler of that curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch.optim import Optimizer

from ..core.param_group_keys import SCHEDULE
from .param_group_values import momentum_key


class _HasParamGroups(Protocol):
    param_groups: list[dict[str, Any]]


class GroupView(Optimizer):
    """The param groups of an optimizer that follow one curve; looks like an optimizer to the curve's scheduler.

    Args:
        optimizer: the optimizer with all groups, or a `SchedulerProxy` of it.
        override: the value under `schedule` of the groups in the view.
        momentum: only groups whose momentum key is this one: `betas`, `momentum` or '' for none. None: all.
    """

    # Schedulers warn unless the optimizer was stepped first; the real optimizer is the one to check.
    _opt_called = True

    def __init__(self, optimizer: Any, override: Mapping[str, Any] | None, momentum: str | None) -> None:
        # Does not call Optimizer.__init__, which would register state, groups and hooks a second time.
        self.optimizer: _HasParamGroups = optimizer
        self.override = override
        self.momentum = momentum
        self.defaults = dict(self.param_groups[0])

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups in the view, looked up on each access because loading a checkpoint replaces the dicts."""
        return [group for group in self.optimizer.param_groups if self._contains(group)]

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Raises RuntimeError: only the optimizer itself can step."""
        raise RuntimeError("a view of param groups cannot step; step the optimizer itself")

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _contains(self, group: Mapping[str, Any]) -> bool:
        return group.get(SCHEDULE) == self.override and self.momentum in (None, momentum_key(group))

    # torch's __getstate__ would save attributes of an optimizer that a view does not have.
    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"GroupView({[group.get('name') for group in self.param_groups]})"
