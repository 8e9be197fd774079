"""`SchedulerFactory`: from a config to a torch scheduler in which each group's configured lr is its peak."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError
from ..core.hyperparameters import Number
from .also import needs_length
from .config import ScheduleConfig
from .joined_groups import follow_joins
from .optimizer_loads import mark_groups_scheduled
from .optimizer_marks import mark_scheduled
from .record import schedule_record
from .resume import Position, make_resumable
from .split_by_curve import add_values, build_by_group, split_by_curve

_NUM_STEPS = Number(default=1000, low=0, integer=True, optional=True)


class SchedulerFactory(ScheduleConfig):
    """A learning-rate schedule as a config describes it, checked when created; call it to build the torch scheduler.

    A group's configured lr is its peak: `one_cycle` and `cyclic` rise to each group's own lr and take no `max_lr`.

    Args:
        name: a schedule: one of torch's in snake_case without `lr`, or `warmup_cosine`, `warmup_linear`,
            `warmup_stable_decay`, `noam`, `inverse_sqrt`.
        interval: the unit of a step: an optimizer `step` or an `epoch`.
        warmup_steps: steps of a linear increase to the peak. A torch schedule starts after them.
        warmup_fraction: the same as a fraction of the run, in place of `warmup_steps`.
        warmup_epochs: the same in epochs, in place of `warmup_steps`.
        total_steps: length of the run in steps of `interval`, if the schedule needs it; by default the trainer's,
            see `configure_optimizers`.
        on_resume: what a resumed run follows. `continue`: the schedule that the checkpoint was saved under; if the
            config has another schedule, length or argument, that is an error. `extend`: the config's schedule, at the
            step where the run is, as though it had been the run's from the start. `restart`: the config's schedule,
            from its beginning, at each resume. An edited lr is no other schedule: the lr continues at the same fraction
            of its new peak.
        also: what the schedule drives besides lr: `weight_decay`, `momentum`, `beta1` or `beta2`, each with a curve
            `{name: cosine, final: 0.4}` or `{name: linear, ...}` from the group's configured value (or `start`, or
            `start_scale` times it) to `final`, or `final_scale` times it, over `steps`, by default those of the run.
            A value that is configured as 0 stays 0.
        **hyperparameters: the schedule's own. `lambda` and `multiplicative` take `lr_lambda`, from Python only;
            `sequential` and `chained` take `schedulers`, a list of blocks `{name: ..., ...}`.

    Raises:
        ConfigError: an argument is wrong or missing.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> scheduler = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=10)(optimizer)
        >>> scheduler.get_last_lr()
        [0.05]
    """

    __module__ = "lightning_optim"  # where users import it from: pickles still load if this file moves

    def __call__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        *,
        steps_per_epoch: int | None = None,
        position: Position | None = None,
    ) -> LRScheduler:
        """The torch scheduler.

        Args:
            optimizer: to drive.
            total_steps: length of the run, used if the config has none.
            steps_per_epoch: optimizer steps in an epoch, which `warmup_epochs` needs.
            position: from `step` or `epoch` to how many of them a resumed run has done; `extend` needs it where the
                checkpoint has another interval or no schedule. It is called while a checkpoint is loaded.

        Raises:
            ConfigError: the schedule needs the length of the run and nothing gives it, or the optimizer's lrs do not
                fit the schedule.
        """
        # Whatever kind of number the caller has: it becomes part of the scheduler's state, and so of a checkpoint.
        total_steps = _NUM_STEPS.check(total_steps, "total_steps")
        steps_per_epoch = _NUM_STEPS.check(steps_per_epoch, "steps_per_epoch")
        mark_scheduled(optimizer)
        record = schedule_record(self, optimizer, total_steps, steps_per_epoch)
        scheduler = build_by_group(self, optimizer, total_steps, steps_per_epoch)
        add_values(self, scheduler, total_steps)
        mark_groups_scheduled(optimizer)
        follow_joins(optimizer, scheduler, lambda other: build_by_group(self, other, total_steps, steps_per_epoch))
        return make_resumable(scheduler, optimizer, on_resume=self.on_resume, record=record, position=position)

    def config(self, optimizer: Optimizer, total_steps: int | None = None, **known: Any) -> dict[str, Any]:
        """Lightning's scheduler dict, `{"scheduler": ..., "interval": ...}`, with the monitor if there is one.

        Args:
            optimizer: to drive.
            total_steps: length of the run, used if the config has none.
            **known: `steps_per_epoch` and `position`, as when called.

        Raises:
            ConfigError: as when called; or `reduce_on_plateau` has no `monitor`.
        """
        scheduler = self(optimizer, total_steps, **known)
        config = {"scheduler": scheduler, "interval": self.interval, "frequency": 1}
        if self.name == "reduce_on_plateau":
            monitor = self.hyperparameters.get("monitor")
            if monitor is None:
                raise ConfigError(
                    "monitor: reduce_on_plateau needs a metric to watch. Type for example monitor: val/loss"
                )
            config |= {"monitor": monitor, "reduce_on_plateau": True}
        return config

    @property
    def __name__(self) -> str:
        """The factory as text. Lightning's WandbLogger writes this of a hyperparameter that is callable."""
        return repr(self)

    def needs_total_steps_for(self, optimizer: Optimizer) -> bool:
        """Whether this schedule, or one that a rule sets for a group, needs a length that no config gives.

        Raises:
            ConfigError: a rule's `schedule` does not fit this schedule.
        """
        curves = split_by_curve(self, optimizer)
        is_open = needs_length(self.also) and self.total_steps is None
        return is_open or any(curve.needs_total_steps for _, curve in curves)

    def needs_steps_per_epoch_for(self, optimizer: Optimizer) -> bool:
        """Whether this schedule, or one that a rule sets for a group, has a warm-up in epochs and steps by step.

        Raises:
            ConfigError: a rule's `schedule` does not fit this schedule.
        """
        return any(curve.needs_steps_per_epoch for _, curve in split_by_curve(self, optimizer))


# Checkpoints hold factories in their hyperparameters: torch.load(weights_only=True) must accept the class.
torch.serialization.add_safe_globals([SchedulerFactory])
