"""`SchedulerFactory`: from a config to a torch scheduler in which each group's configured lr is its peak."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError
from .config import ScheduleConfig
from .optimizer_marks import mark_scheduled
from .split_by_curve import build_by_group, split_by_curve
from .state_by_name import save_by_name


class SchedulerFactory(ScheduleConfig):
    """A learning-rate schedule as a config describes it, checked when created; call it to build the torch scheduler.

    A group's configured lr is its peak: `one_cycle` and `cyclic` rise to each group's own lr and take no `max_lr`.

    Args:
        name: a schedule: one of torch's in snake_case without `lr`, or `warmup_cosine`, `warmup_linear`,
            `warmup_stable_decay`, `noam`, `inverse_sqrt`.
        interval: the unit of a step: an optimizer `step` or an `epoch`.
        warmup_steps: steps of a linear increase to the peak. A torch schedule starts after them.
        total_steps: length of the run in steps of `interval`, if the schedule needs it; by default the trainer's,
            see `configure_optimizers`.
        **hyperparameters: the schedule's own. `lambda` and `multiplicative` take `lr_lambda`, from Python only;
            `sequential` and `chained` take `schedulers`, a list of blocks `{name: ..., ...}`.

    Raises:
        ConfigError: an argument is wrong or missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> scheduler = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=10)(optimizer)
        >>> scheduler.get_last_lr()
        [0.05]
    """

    __module__ = "lightning_optim"  # where users import it from: pickles still load if this file moves

    def __call__(self, optimizer: Optimizer, total_steps: int | None = None) -> LRScheduler:
        """The torch scheduler.

        Args:
            optimizer: to drive.
            total_steps: length of the run, used if the config has none.

        Raises:
            ConfigError: the schedule needs the length of the run and nothing gives it, or the optimizer's lrs do not
                fit the schedule.
        """
        mark_scheduled(optimizer)
        scheduler = build_by_group(self, optimizer, total_steps)
        return save_by_name(scheduler) if all("name" in group for group in optimizer.param_groups) else scheduler

    def config(self, optimizer: Optimizer, total_steps: int | None = None) -> dict[str, Any]:
        """Lightning's scheduler dict, `{"scheduler": ..., "interval": ...}`, with the monitor if there is one.

        Raises:
            ConfigError: as when called; or `reduce_on_plateau` has no `monitor`.
        """
        config = {"scheduler": self(optimizer, total_steps), "interval": self.interval, "frequency": 1}
        if self.name == "reduce_on_plateau":
            monitor = self.hyperparameters.get("monitor")
            if monitor is None:
                raise ConfigError(
                    "monitor: reduce_on_plateau needs a metric to watch. Type for example monitor: val/loss"
                )
            config |= {"monitor": monitor, "reduce_on_plateau": True}
        return config

    def needs_total_steps_for(self, optimizer: Optimizer) -> bool:
        """Whether this schedule, or one that a rule sets for a group, needs a length that no config gives.

        Raises:
            ConfigError: a rule's `schedule` does not fit this schedule.
        """
        return any(curve.needs_total_steps for _, curve in split_by_curve(self, optimizer))


# Checkpoints hold factories in their hyperparameters: torch.load(weights_only=True) must accept the class.
torch.serialization.add_safe_globals([SchedulerFactory])
