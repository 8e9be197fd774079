"""Lightning's scheduler dict for an optimizer from a factory, and the check that config nodes were instantiated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from ..core.errors import ConfigError
from ..core.param_group_keys import SCHEDULE
from ..schedule.factory import SchedulerFactory


def scheduler_config(
    optimizer: Optimizer, scheduler: SchedulerFactory | None, run_length: Callable[[str], int]
) -> dict[str, Any] | None:
    """Lightning's scheduler dict; None where every lr is constant.

    Args:
        optimizer: the optimizer to schedule.
        scheduler: None for a constant lr in every group without a `schedule` of its own.
        run_length: from an interval, `step` or `epoch`, to how many of them the run has; called only where the
            schedule needs it.

    Raises:
        ConfigError: from the scheduler's factory, or from `run_length`.
    """
    if scheduler is None:
        if all(SCHEDULE not in group for group in optimizer.param_groups):
            return None
        scheduler = SchedulerFactory("constant", factor=1.0)
    check_instantiated("scheduler", scheduler, SchedulerFactory)
    total_steps = run_length(scheduler.interval) if scheduler.needs_total_steps_for(optimizer) else None
    return scheduler.config(optimizer, total_steps)


def check_instantiated(key: str, factory: Any, cls: type) -> None:
    """Check that a config node was instantiated, and to the right factory.

    Args:
        key: of the node.
        factory: the object passed for it.
        cls: `OptimizerFactory` or `SchedulerFactory`.

    Raises:
        ConfigError: it is a mapping, a `functools.partial` or something else.
    """
    if isinstance(factory, cls):
        return
    if getattr(factory, "func", None) is cls:
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type _partial_: false")
    if isinstance(factory, Mapping):
        hint = "instantiate it first: hydra.utils.instantiate(cfg)"
    else:
        hint = f"type _target_: lightning_optim.{cls.__name__} in the config"
    raise ConfigError(f"{key}: got a {type(factory).__name__}, not a {cls.__name__}; {hint}")
