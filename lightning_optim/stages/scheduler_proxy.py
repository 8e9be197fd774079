"""The proxy: param groups as configured, which schedulers go on driving while live groups come, go and follow.

A scheduler keeps lists with one entry per group and most of them break, or leave their curve, when a group joins late.
So none joins: every scheduler is handed the proxy in place of the optimizer and sees the same groups for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError
from ..groups.merging import has_moved, merged
from ..schedule.by_group import GroupView, mark_moved_groups
from ..schedule.param_group_values import copied


class SchedulerProxy:
    """A stand-in for an optimizer: its groups, without the means to step.

    Args:
        optimizer: its param groups are copied as they stand; values that schedulers write go to the copies only.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.param_groups: list[dict[str, Any]] = [copied(group) for group in optimizer.param_groups]
        self.defaults = optimizer.defaults
        self.state: dict[Any, Any] = {}
        # LearningRateMonitor names curves by class: these beside those of the live groups, which keep the optimizer's.
        self.__class__ = type(f"{type(optimizer).__name__}AsConfigured", (SchedulerProxy,), {})
        # torch's schedulers warn unless a step of the optimizer, wrapped by them, came first.
        self._opt_called = True

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Nothing to step here."""
        raise RuntimeError("a proxy of param groups cannot step; step the optimizer itself")

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def retarget(self, scheduler: Any, optimizer: Optimizer) -> None:
        """Make a scheduler, and all schedulers in it, drive this proxy instead of `optimizer`.

        Raises:
            ConfigError: no reference to the optimizer can be found in it.
        """
        references = _references(scheduler, optimizer)
        if not references:
            raise ConfigError(
                f"scheduler: no reference to the optimizer can be found in {type(scheduler).__name__}, so a stage "
                "cannot join its curve. Take a torch.optim.lr_scheduler"
            )
        for holder, attribute in references:
            setattr(holder, attribute, self)

    def state_dict(self) -> list[dict[str, Any]]:
        """What schedulers made of each group's hyperparameters."""
        return [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Take the hyperparameters back, each group's from those that its parameters were in.

        Raises:
            ConfigError: they do not say the parameters' names, and are of another number of groups.
        """
        moved = []
        for group, sources in zip(self.param_groups, self._sources(state), strict=True):
            if sources and has_moved(group, sources):
                moved.append(str(group["name"]))
            group.update(merged(group, sources))
        mark_moved_groups(self, moved)

    def _sources(self, state: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        if all("param_names" in group for group in (*state, *self.param_groups)):
            held = {name: group for group in state for name in group["param_names"]}
            found = [[held[name] for name in group["param_names"] if name in held] for group in self.param_groups]
            return [list({id(source): source for source in sources}.values()) for sources in found]
        if len(state) != len(self.param_groups):
            raise ConfigError(
                f"the checkpoint's optimizer was configured with {len(state)} param groups, this run's with "
                f"{len(self.param_groups)}. Give the groups that the checkpoint was saved under."
            )
        return [[group] for group in state]


def drives(scheduler: Any, optimizer: Optimizer) -> bool:
    """Whether a scheduler, or one in it, holds a reference to this optimizer."""
    return bool(_references(scheduler, optimizer))


def _references(scheduler: Any, optimizer: Optimizer) -> list[tuple[Any, str]]:
    """`(object, attribute)` wherever the optimizer stands in a scheduler or in the schedulers it holds."""
    found = []
    for attribute, value in vars(scheduler).items():
        if value is optimizer:
            found.append((scheduler, attribute))
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, LRScheduler):
                    found += _references(item, optimizer)
        elif isinstance(value, (LRScheduler, GroupView)):
            found += _references(value, optimizer)
    return found
