"""How a scheduler resumes from a checkpoint: as it was saved, or with the config's curve, as `on_resume` says."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import ConfigError
from ..core.later_release import refuse_unknown
from .beginning import Beginning, read_group_values, write_group_values
from .by_group import SchedulerByGroup
from .joined_groups import schedule_joined_groups
from .optimizer_loads import watch_loads
from .record import Record, changes_momentum, changes_weight_decay, find_differences, follows_metrics
from .saved_schedule import check_constants, check_has_begun, check_record, check_scheduler_state, refuse_wrong_schedule
from .scheduler_state import num_steps
from .state_by_name import RESUME, save_by_name, torch_state
from .state_by_name import load_state_dict as load_by_name
from .state_by_name import state_dict as state_by_name

_LOG = logging.getLogger(__name__)

# The key of the record in a saved scheduler state, and in the record the position at which its curve started.
_RECORD, _STARTED_AT = "schedule", "started_at"

_RUN_START = {"step": 0, "epoch": 0}

Position = Callable[[str], int]
"""From an interval, `step` or `epoch`, to how many of them the resumed run has done."""


def make_resumable(
    scheduler: LRScheduler, optimizer: Optimizer, *, on_resume: str, record: Record, position: Position | None
) -> LRScheduler:
    """Make a new scheduler save the record of its schedule, and load as `on_resume` says; returns it.

    The class stays torch's own: the two methods are set on the instance.

    Args:
        scheduler: a new one.
        optimizer: the one that it was built for.
        on_resume: `continue`, `extend` or `restart`.
        record: of its schedule.
        position: where the run is, asked while a checkpoint is loaded; None if nobody knows.
    """
    named = all("name" in group for group in optimizer.param_groups)
    if named:
        save_by_name(scheduler)
    resume = Resume(scheduler, on_resume, record, position, named=named)
    setattr(scheduler, RESUME, resume)
    for method in (state_dict, load_state_dict):
        setattr(scheduler, method.__name__, MethodType(method, scheduler))
    watch_loads(optimizer, scheduler, resume)
    return scheduler


# Methods for an instance. A bound method is pickled by its function's name, so they have the names of torch's.


def state_dict(self: LRScheduler) -> dict[str, Any]:
    """The state of the scheduler, with the record of its schedule."""
    resume: Resume = getattr(self, RESUME)
    return {**resume.save(self), **resume.saved_record()}


def load_state_dict(self: LRScheduler, state_dict: Mapping[str, Any]) -> None:
    """Load a state as `on_resume` says.

    Raises:
        ConfigError: the schedule differs and `on_resume` is `continue`; or the config's curve cannot be computed.
    """
    schedule_joined_groups(self.optimizer, keep_values=True)
    resume: Resume = getattr(self, RESUME)
    with refuse_wrong_schedule():
        resume.load(self, dict(state_dict))


class Resume:
    """What a scheduler needs to know to resume; the arguments are those of `make_resumable`."""

    def __init__(
        self, scheduler: LRScheduler, on_resume: str, record: Record, position: Position | None, *, named: bool
    ) -> None:
        self._on_resume = on_resume
        self._record = record
        self._position = position
        self._named = named
        self._started_at: Mapping[str, int] | None = _RUN_START
        """Where the run was when its curve started; None if nobody knows."""
        self._is_recorded = True
        """Whether the curve is the record's; unknown where a state without one was loaded as it was."""
        self._beginning = Beginning(scheduler, self.save(scheduler))
        self._error: str | None = None
        """Why the optimizer, whose state was loaded, cannot take a step."""
        """Whether a state was loaded into the scheduler."""
        self._set_by_load: tuple[int, list[dict[str, Any]]] | None = None
        """After `extend` and `restart`: the scheduler's step, and the values of the groups."""

    def save(self, scheduler: LRScheduler) -> dict[str, Any]:
        """The state of the scheduler alone."""
        if isinstance(scheduler, SchedulerByGroup):
            return SchedulerByGroup.state_dict(scheduler)
        if self._named:
            return state_by_name(scheduler)
        return torch_state(scheduler)

    def saved_record(self) -> dict[str, Any]:
        """What the saved state holds besides."""
        if not self._is_recorded:
            return {}
        return {_RECORD: {**copy.deepcopy(self._record), _STARTED_AT: self._started_at}}

    def load(self, scheduler: LRScheduler, state: dict[str, Any]) -> None:
        """See `load_state_dict`."""
        saved = state.pop(_RECORD, None)
        if saved is not None:
            check_record(saved)
            refuse_unknown(saved, ("interval", "curves", "also", _STARTED_AT), "scheduler")
        check_has_begun(state)
        self._error = None
        if self._on_resume == "restart":
            self._start(scheduler, 0, saved)
        elif saved is None:
            self._load_unrecorded(scheduler, state)
        elif differences := find_differences(saved, self._record):
            if self._on_resume == "continue":
                raise ConfigError(
                    "scheduler: the checkpoint was saved under another schedule than the config's (checkpoint -> "
                    f"config): {'; '.join(differences)}. {_CHOICES}, or the schedule of the checkpoint"
                )
            self._extend(scheduler, self._find_position(saved, state), saved)
            self._started_at = saved[_STARTED_AT]
        else:
            check_constants(self.save(scheduler), state)
            self._load(scheduler, state)
            self._started_at, self._is_recorded = saved[_STARTED_AT], True

    def after_optimizer_load(self, scheduler: LRScheduler, *, was_scheduled: bool) -> None:
        """Put the scheduler on the config's curve where the checkpoint has no schedule, and `on_resume` says so."""
        self._error = None
        if isinstance(scheduler, SchedulerByGroup):
            scheduler.apply_values()
        if self._set_by_load is not None and self._set_by_load[0] == num_steps(self.save(scheduler)):
            # The scheduler's state was loaded before the optimizer's, which has overwritten the groups.
            write_group_values(scheduler, self._set_by_load[1], momentum=True, weight_decay=True)
        elif was_scheduled:
            return
        elif self._on_resume == "restart":
            self._start(scheduler, 0, None)
        elif self._on_resume == "extend" and self._position is not None:
            self._extend(scheduler, self._position(self._record["interval"]), None)
            self._started_at = _RUN_START
        else:
            # No error yet: an older version marked no groups for ReduceLROnPlateau, and its state is loaded next.
            self._error = self._explain_added_schedule()

    def check_loaded(self) -> None:
        """Raise the error of the last load of the optimizer, if the scheduler's state was not loaded after it."""
        if self._error is not None:
            raise ConfigError(self._error)

    def _explain_added_schedule(self) -> str:
        names = ", ".join(dict.fromkeys(curve["name"] for curve in self._record["curves"]))
        if self._on_resume == "extend":
            return (
                f"scheduler.on_resume: the checkpoint was saved without a schedule, so the step at which {names} has "
                "to be extended is not known here. Type scheduler.on_resume: restart, or build the scheduler with "
                "lightning_optim.configure_optimizers, which asks the trainer"
            )
        return (
            f"scheduler: the checkpoint was saved without a schedule, and the config has {names}. {_CHOICES}, or "
            "scheduler: null"
        )

    def _load(self, scheduler: LRScheduler, state: dict[str, Any]) -> None:
        if isinstance(scheduler, SchedulerByGroup):
            SchedulerByGroup.load_state_dict(scheduler, state)
        elif self._named:
            load_by_name(scheduler, state)
        else:
            type(scheduler).load_state_dict(scheduler, check_scheduler_state(torch_state(scheduler), state))
        self._set_by_load = None

    def _load_unrecorded(self, scheduler: LRScheduler, state: dict[str, Any]) -> None:
        """Load a state without a record: of an older version of this package, or of torch's own scheduler."""
        if self._on_resume == "extend":
            steps = num_steps(state) if self._position is None else self._position(self._record["interval"])
            self._extend(scheduler, steps, None)
            self._started_at = None if self._position is None else _RUN_START
            return
        _LOG.warning(
            "scheduler: the checkpoint does not record its schedule, so nothing could be compared with the config's; "
            "it is loaded as it was saved"
        )
        self._load(scheduler, state)
        self._is_recorded = False

    def _find_position(self, saved: Record, state: Mapping[str, Any]) -> int:
        """How many steps of this run's interval the saved curve has taken."""
        steps, interval = num_steps(state), self._record["interval"]
        started_at = saved[_STARTED_AT]
        is_known = self._position is not None and started_at is not None
        # Lightning steps ReduceLROnPlateau after it has written the checkpoint of that moment.
        if saved["interval"] == interval and not (is_known and follows_metrics(saved)):
            return steps
        if self._position is None or started_at is None:
            raise ConfigError(
                f"scheduler.interval: the checkpoint's schedule has taken {steps} steps, one per {saved['interval']}, "
                f"and how many steps of one per {interval} that makes is not known here. Type scheduler.interval: "
                f"{saved['interval']}, or scheduler.on_resume: restart, or build the scheduler with "
                "lightning_optim.configure_optimizers, which asks the trainer"
            )
        return self._position(interval) - int(started_at[interval])

    def _extend(self, scheduler: LRScheduler, steps: int, saved: Record | None) -> None:
        if follows_metrics(self._record):
            raise ConfigError(
                "scheduler.on_resume: extend: the lr of reduce_on_plateau depends on the metrics of the run so far, "
                "which the checkpoint does not have. Type scheduler.on_resume: restart, or the schedule of the "
                "checkpoint"
            )
        self._start(scheduler, steps, saved)

    def _start(self, scheduler: LRScheduler, steps: int, saved: Record | None) -> None:
        """Put the scheduler on the config's curve, this many steps after its beginning."""
        groups = scheduler.optimizer.param_groups
        records = [self._record] if saved is None else [self._record, saved]
        momentum = any(map(changes_momentum, records)) or any("max_momentum" in group for group in groups)
        self._beginning.restore(
            scheduler,
            lambda state: self._load(scheduler, state),
            steps=steps,
            momentum=momentum,
            weight_decay=any(map(changes_weight_decay, records)),
        )
        self._set_by_load = (num_steps(self.save(scheduler)), read_group_values(scheduler))
        position = self._position
        self._started_at = None if position is None else {key: position(key) for key in ("step", "epoch")}
        self._is_recorded = True
        where = f"at its step {steps}" if steps else "from its beginning"
        _LOG.warning("scheduler.on_resume: %s: the run follows the config's schedule, %s", self._on_resume, where)


_CHOICES = (
    "Type scheduler.on_resume: extend for the config's curve at the step where the run is, scheduler.on_resume: "
    "restart for the config's curve from its beginning"
)
