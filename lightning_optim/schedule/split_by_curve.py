"""Find the curve of each param group, where rules set `schedule:`, and build one scheduler per curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import SCHEDULE
from .also import resolve_also
from .building import build_scheduler
from .by_group import SchedulerByGroup
from .config import ScheduleConfig
from .group_view import GroupView
from .optimizer_marks import mark_values
from .param_group_values import momentum_key
from .resolve import resolve_schedule
from .value_curves import ValueCurves


def build_by_group(
    config: ScheduleConfig, optimizer: Optimizer, total_steps: int | None, steps_per_epoch: int | None = None
) -> LRScheduler:
    """The torch scheduler where all groups follow the config's curve and nothing else, else a `SchedulerByGroup`.

    Args:
        config: the schedule of the groups without an override.
        optimizer: to drive.
        total_steps: length of the run, for schedules whose config has none.
        steps_per_epoch: optimizer steps in an epoch, for warm-ups in epochs.

    Raises:
        ConfigError: as `resolve_schedule` and `build_scheduler`, and if an override does not fit the config.
    """
    curves = split_by_curve(config, optimizer)
    if len(curves) == 1 and curves[0][0].override is None and not config.also:
        return build_scheduler(resolve_schedule(config, total_steps, steps_per_epoch), optimizer)
    schedulers = []
    for view, view_config in curves:
        with _locate_override_errors(view.override, optimizer):
            schedulers.append(build_scheduler(resolve_schedule(view_config, total_steps, steps_per_epoch), view))
    return SchedulerByGroup(optimizer, [view for view, _ in curves], schedulers)


def add_values(config: ScheduleConfig, scheduler: LRScheduler, total_steps: int | None) -> None:
    """Let a new scheduler drive what `also` says.

    Args:
        config: of the schedule.
        scheduler: from `build_by_group`.
        total_steps: length of the run, for curves whose config has none.

    Raises:
        ConfigError: as `resolve_also` and `ValueCurves`, or a curve of lr cycles the same momentum.
    """
    optimizer = scheduler.optimizer
    if not config.also:
        mark_values(optimizer, None)
        return
    assert isinstance(scheduler, SchedulerByGroup)
    _check_not_cycled(config, optimizer)
    total = config.total_steps if config.total_steps is not None else total_steps
    scheduler.values = ValueCurves(resolve_also(config.also, total), optimizer.param_groups)
    mark_values(optimizer, scheduler.values)
    scheduler.apply_values()


def resolve_by_override(
    config: ScheduleConfig, optimizer: Optimizer, total_steps: int | None, steps_per_epoch: int | None = None
) -> list[tuple[Mapping[str, Any] | None, dict[str, Any]]]:
    """`(override, resolved schedule)` for each `schedule` override of the groups; None stands for groups without."""
    resolved = []
    for override, curve in _configs_by_override(config, optimizer):
        with _locate_override_errors(override, optimizer):
            resolved.append((override, resolve_schedule(curve, total_steps, steps_per_epoch)))
    return resolved


def _check_not_cycled(config: ScheduleConfig, optimizer: Optimizer) -> None:
    """Check that no schedule of lr cycles the momentum that `also` drives."""
    driven = next((key for key in config.also or () if key in ("momentum", "beta1")), None)
    for override, curve in _configs_by_override(config, optimizer) if driven else ():
        if curve.arguments().get("cycle_momentum", False) is not False:
            with _locate_override_errors(override, optimizer):
                raise ConfigError(
                    f"cycle_momentum: {curve.name} cycles momentum or beta1, and also.{driven} drives it too. Type "
                    f"cycle_momentum: false, or remove also.{driven}"
                )


def split_by_curve(config: ScheduleConfig, optimizer: Optimizer) -> list[tuple[GroupView, ScheduleConfig]]:
    """The curves that the groups follow, each with its config.

    Groups with one override share a curve. If it cycles momentum and their momentum keys differ (`betas` and
    `momentum`), there is one curve per key, because torch's schedulers expect the same key in every group.

    Raises:
        ConfigError: an override does not fit the config.
    """
    groups = optimizer.param_groups
    curves = []
    for override, curve in _configs_by_override(config, optimizer):
        keys = _unique(momentum_key(group) for group in groups if group.get(SCHEDULE) == override)
        if len(keys) == 1 or "cycle_momentum" not in curve.info.hyperparameters:
            curves.append((GroupView(optimizer, override, None), curve))
            continue
        for key in keys:
            curves.append((GroupView(optimizer, override, key), curve if key else _without_cycling(curve)))
    return curves


def _configs_by_override(
    config: ScheduleConfig, optimizer: Optimizer
) -> Iterator[tuple[Mapping[str, Any] | None, ScheduleConfig]]:
    for override in _unique(group.get(SCHEDULE) for group in optimizer.param_groups):
        with _locate_override_errors(override, optimizer):
            curve = config if override is None else config.with_override(override)
        yield override, curve


def _without_cycling(config: ScheduleConfig) -> ScheduleConfig:
    """The same schedule for groups without momentum, where `cycle_momentum: true` would be refused."""
    changed = copy(config)
    changed.hyperparameters = {**config.hyperparameters, "cycle_momentum": None}
    return changed


@contextmanager
def _locate_override_errors(override: Mapping[str, Any] | None, optimizer: Optimizer) -> Iterator[None]:
    """Adds to a ConfigError raised inside that it is about a rule's `schedule`, and of which groups."""
    try:
        yield
    except ConfigError as error:
        if override is None:
            raise
        names = [str(group.get("name")) for group in optimizer.param_groups if group.get(SCHEDULE) == override]
        raise ConfigError(f"schedule.{error} (in the rule of param groups {format_names(names, 3)})") from None


def _unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order; an override is a mapping, which cannot be hashed."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
