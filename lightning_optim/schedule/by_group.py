"""Groups on curves of their own: one torch scheduler for each curve, over the groups that follow it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import SCHEDULE
from .param_group_values import assign

_MOMENTA = ("betas", "momentum")
_SCHEDULED = "_has_schedule_by_group"
_MOVED = "_moved_to_other_curves"


class _HasGroups(Protocol):
    param_groups: list[dict[str, Any]]


class GroupView(Optimizer):
    """The groups of an optimizer that follow one curve, as an optimizer for that curve's scheduler to drive.

    Args:
        optimizer: the whole; a `SchedulerProxy` may take its place.
        override: what those groups have under `schedule`.
        momentum: only those of them with this key, `betas` or `momentum`, or with neither (''); None: all.
    """

    # A scheduler looks here whether a step came before its own: that is asked of the whole.
    _opt_called = True

    def __init__(self, optimizer: Any, override: Mapping[str, Any] | None, momentum: str | None) -> None:
        # Not torch's: nothing is to be registered, held or hooked twice.
        self.optimizer: _HasGroups = optimizer
        self.override = override
        self.momentum = momentum
        self.defaults = dict(self.param_groups[0])

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those groups, as they are now: loading a checkpoint puts other dicts in their place."""
        return [group for group in self.optimizer.param_groups if self._has(group)]

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Nothing to step here."""
        raise RuntimeError("a view of param groups cannot step; step the optimizer itself")

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _has(self, group: Mapping[str, Any]) -> bool:
        return group.get(SCHEDULE) == self.override and self.momentum in (None, momentum_of(group))

    # torch's would save an optimizer's parts, of which this has none.
    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"GroupView({[group.get('name') for group in self.param_groups]})"


class SchedulerByGroup(LRScheduler):
    """A scheduler for each curve, all driven together.

    Args:
        optimizer: the whole.
        views: which groups follow which curve; between them, all.
        schedulers: one for each view.
    """

    def __init__(self, optimizer: Optimizer, views: Sequence[GroupView], schedulers: Sequence[LRScheduler]) -> None:
        # Not torch's, which would take a first step with a curve of its own.
        self.optimizer = optimizer
        self._views = list(views)
        self._schedulers = list(schedulers)

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """How many steps were taken."""
        return max(num_steps(scheduler.state_dict()) for scheduler in self._schedulers)

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]
        """Each group's, in the optimizer's order."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    def step(self, metrics: Any = None) -> None:
        """A step of each curve; `metrics` goes to those that wait for a plateau."""
        for scheduler in self._schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(metrics)
            else:
                scheduler.step()

    def get_last_lr(self) -> list[float | Tensor]:
        """Each group's lr as it is now, in the optimizer's order."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Every curve's state, with what its groups have under `schedule`."""
        return {
            "curves": [
                {SCHEDULE: view.override, "momentum": view.momentum, "state": scheduler.state_dict()}
                for view, scheduler in zip(self._views, self._schedulers, strict=True)
            ]
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Every curve's state by what it is the curve of; one that is new is brought to where the run is."""
        saved = curves(state_dict)
        done = max(num_steps(curve["state"]) for curve in saved)
        for view, scheduler in zip(self._views, self._schedulers, strict=True):
            same = [c for c in saved if (c[SCHEDULE], c["momentum"]) == (view.override, view.momentum)]
            same = same or [c for c in saved if c[SCHEDULE] == view.override and None in (c["momentum"], view.momentum)]
            if same:
                scheduler.load_state_dict(same[0]["state"])
            else:
                advance(scheduler, done, [str(group.get("name")) for group in view.param_groups])


def curves(state_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The curves in a scheduler's state; one that is not by group has one."""
    found: list[dict[str, Any]] = state_dict.get(
        "curves", [{SCHEDULE: None, "momentum": None, "state": dict(state_dict)}]
    )
    return found


def num_steps(state: Mapping[str, Any]) -> int:
    """How many steps a scheduler has taken, by its state; torch's ChainedScheduler leaves the count to those in it."""
    if "last_epoch" in state:
        return int(state["last_epoch"])
    return max(num_steps(inner) for inner in state["_schedulers"])


def advance(scheduler: LRScheduler, steps: int, names: Sequence[str]) -> None:
    """Bring a new scheduler to where a run is that has taken this many of its steps.

    Args:
        scheduler: a new one, at its first step.
        steps: how many.
        names: the groups that are on another curve than when their optimizer was saved; no longer, after this.

    Raises:
        ConfigError: it is one whose steps are not told by their number.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f"scheduler: {format_names(names, 3)} had another schedule in the checkpoint, and what "
            "reduce_on_plateau would "
            "have made of them is not known. Give the schedule that they were saved under"
        )
    for group, lr in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
        assign(group, "lr", lr)  # a loaded optimizer has it from another curve
    with warnings.catch_warnings():
        # torch wants a step of the optimizer first; those were taken before the checkpoint.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for _ in range(steps):
            scheduler.step()
    mark_moved_groups(scheduler.optimizer, moved_groups(scheduler.optimizer) - set(names))


def momenta(group: Mapping[str, Any]) -> list[str]:
    """The keys of what a schedule may cycle in a group besides lr; torch's take the first."""
    return [key for key in _MOMENTA if key in group]


def momentum_of(group: Mapping[str, Any]) -> str:
    """The key of the momentum that a schedule may cycle in a group; '' where it has none."""
    return next(iter(momenta(group)), "")


def mark_scheduled(optimizer: Optimizer) -> None:
    """Note on an optimizer that its schedule knows its groups."""
    setattr(optimizer, _SCHEDULED, True)


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a schedule that knows its groups drives an optimizer."""
    return getattr(optimizer, _SCHEDULED, False)


def is_scheduled_elsewhere(optimizer: Optimizer) -> bool:
    """Whether another scheduler drives it, as far as can be told: torch's wrap its step, but for ReduceLROnPlateau."""
    return hasattr(optimizer.step, "_wrapped_by_lr_sched") and not is_scheduled(optimizer)


def mark_moved_groups(optimizer: Any, names: Iterable[str]) -> None:
    """Note on what was loaded, an optimizer or a ledger, the groups that are on another curve than when it was saved.

    Their lr is the config's until their schedule has been loaded too.
    """
    setattr(_whole(optimizer), _MOVED, frozenset(names))


def moved_groups(optimizer: Any) -> frozenset[str]:
    """The groups that are on another curve than when their optimizer was saved."""
    return getattr(_whole(optimizer), _MOVED, frozenset())


def _whole(optimizer: Any) -> Any:
    while isinstance(optimizer, GroupView):
        optimizer = optimizer.optimizer
    return optimizer
