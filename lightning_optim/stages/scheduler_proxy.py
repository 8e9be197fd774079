"""A stand-in for the optimizer that schedulers drive: it always has all configured groups, thawed or not.

A scheduler keeps lists with one entry per group. If a group is added later, most schedulers raise an error or give it a
wrong lr. So no group is ever added to what the scheduler sees: it drives the proxy, whose groups never change, and the
optimizer's groups take their values from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError
from ..groups.merge_values import has_moved, merge_values
from ..schedule.group_view import GroupView
from ..schedule.optimizer_loads import was_schedule_removed, without_schedule
from ..schedule.optimizer_marks import mark_moved_groups
from ..schedule.param_group_values import copy_group


class SchedulerProxy:
    """The configured param groups of an optimizer, as an optimizer that schedulers can drive but nobody can step.

    Args:
        optimizer: its param groups are copied; what schedulers write goes to the copies only.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.param_groups: list[dict[str, Any]] = [copy_group(group) for group in optimizer.param_groups]
        self.defaults = optimizer.defaults
        self.state: dict[Any, Any] = {}
        # torch's schedulers warn unless the optimizer was stepped first, through a `step` that they have wrapped.
        self._opt_called = True

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Raises RuntimeError: only the optimizer itself can step."""
        raise RuntimeError("a proxy of param groups cannot step; step the optimizer itself")

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def retarget(self, scheduler: Any, optimizer: Optimizer) -> None:
        """Make a scheduler, and all schedulers inside it, drive this proxy instead of `optimizer`.

        Raises:
            ConfigError: no reference to the optimizer was found in the scheduler.
        """
        references = _find_references(scheduler, optimizer)
        if not references:
            raise ConfigError(
                f"scheduler: no reference to the optimizer found in {type(scheduler).__name__}, so groups that thaw "
                "later cannot follow it. Use a torch.optim.lr_scheduler"
            )
        for owner, attribute in references:
            setattr(owner, attribute, self)

    def state_dict(self) -> list[dict[str, Any]]:
        """The values of each group as the schedulers have set them, without parameters."""
        return [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Restore the values of each group from the saved groups that had its parameters.

        Raises:
            ConfigError: the groups have no parameter names, and their number differs.
        """
        moved = []
        schedule_removed = was_schedule_removed(self.param_groups, state)
        for group, sources in zip(self.param_groups, self.match_saved(state), strict=True):
            if sources and has_moved(group, sources):
                moved.append(str(group["name"]))
            merged = merge_values(group, sources)
            group.update(without_schedule(merged, group) if schedule_removed else merged)
        mark_moved_groups(self, moved)

    def match_saved(self, state: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """The saved groups that held each group's parameters: by name, or by position without names."""
        if all("param_names" in group for group in (*state, *self.param_groups)):
            saved = {name: group for group in state for name in group["param_names"]}
            found = [[saved[name] for name in group["param_names"] if name in saved] for group in self.param_groups]
            return [list({id(source): source for source in sources}.values()) for sources in found]
        if len(state) != len(self.param_groups):
            raise ConfigError(
                f"the checkpoint's optimizer was configured with {len(state)} param groups, this run's with "
                f"{len(self.param_groups)}. Use the groups that the checkpoint was saved with."
            )
        return [[group] for group in state]


def drives(scheduler: Any, optimizer: Optimizer) -> bool:
    """Whether a scheduler, or one inside it, has a reference to this optimizer."""
    return bool(_find_references(scheduler, optimizer))


def by_optimizer(schedulers: Sequence[Any], optimizers: Sequence[Optimizer]) -> list[list[Any]]:
    """The schedulers that drive each optimizer; one that drives none goes to the first, whose proxy refuses it."""
    result: list[list[Any]] = [[] for _ in optimizers]
    for scheduler in schedulers:
        driven = [index for index, optimizer in enumerate(optimizers) if drives(scheduler, optimizer)]
        result[driven[0] if driven else 0].append(scheduler)
    return result


def _find_references(scheduler: Any, optimizer: Optimizer) -> list[tuple[Any, str]]:
    """`(object, attribute)` of each reference to the optimizer in a scheduler and in the schedulers inside it."""
    found = []
    for attribute, value in vars(scheduler).items():
        if value is optimizer:
            found.append((scheduler, attribute))
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, LRScheduler):
                    found += _find_references(item, optimizer)
        elif isinstance(value, (LRScheduler, GroupView)):
            found += _find_references(value, optimizer)
    return found
