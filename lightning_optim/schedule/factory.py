"""From config to schedule: plain torch schedulers in which each group's configured lr is its peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

from ..core.config_values import to_plain
from ..core.errors import ConfigError, choices, format_names, leftover_hint, requires_name
from ..core.hyperparameters import Number
from ..core.param_group_keys import SCHEDULE
from .arguments import curve_arguments, peak_arguments
from .by_group import GroupView, SchedulerByGroup, mark_scheduled, momentum_of
from .by_name import by_name
from .catalog import SCHEDULES, ScheduleInfo, schedule_info, schedules_with
from .curves import Warmup

_INTERVALS = ("step", "epoch")
_PEAK_ARGUMENTS = ("max_lr", "max_lrs")
_LENGTH_ARGUMENTS = ("epochs", "steps_per_epoch")


class SchedulerFactory:
    """A learning-rate schedule as a config describes it, checked when made; call it with an optimizer to build it.

    A group's configured lr is its peak: `one_cycle` and `cyclic` climb to each group's own, and take no `max_lr`.

    Args:
        name: a schedule, torch's in snake_case without `lr` or one of `warmup_cosine`, `warmup_linear`,
            `warmup_stable_decay`, `noam`, `inverse_sqrt`.
        interval: what a step is: an optimizer `step` or an `epoch`.
        warmup_steps: steps of a linear climb to the peak; before a torch schedule, which then begins at its end.
        total_steps: length of the run in steps of `interval`, where the schedule needs it; by default Lightning's,
            see `configure_optimizers`.
        **hyperparameters: the schedule's own. `lambda` and `multiplicative` take `lr_lambda`, from Python only;
            `sequential` and `chained` take `schedulers`, a list of blocks `{name: ..., ...}`.

    Raises:
        ConfigError: something of this is wrong.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> scheduler = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=10)(optimizer)
        >>> scheduler.get_last_lr()
        [0.05]
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    @requires_name(example="warmup_cosine")
    def __init__(
        self,
        name: str,
        *,
        interval: str = "step",
        warmup_steps: int = 0,
        total_steps: int | None = None,
        **hyperparameters: Any,
    ) -> None:
        self.name = name
        self.interval = interval
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.hyperparameters: dict[str, Any] = {key: to_plain(value) for key, value in hyperparameters.items()}
        self._check()

    @property
    def info(self) -> ScheduleInfo:
        """The registry's entry."""
        return schedule_info(self.name)

    @property
    def needs_total_steps(self) -> bool:
        """Whether the length of the run must come from elsewhere than this config."""
        if self.total_steps is not None:
            return False
        if self.info.blocks:
            return any(block.needs_total_steps for block in self._open_blocks())
        return self.info.length is not None and self.hyperparameters.get(self.info.length) is None

    def __call__(self, optimizer: Optimizer, total_steps: int | None = None) -> LRScheduler:
        """The torch scheduler.

        Args:
            optimizer: what it drives.
            total_steps: length of the run, for where the config has none.

        Raises:
            ConfigError: the schedule needs the length of the run, and it is given nowhere; or the optimizer's lrs do
                not go with the schedule.
        """
        mark_scheduled(optimizer)
        scheduler = self._by_group(optimizer, total_steps)
        return by_name(scheduler) if all("name" in group for group in optimizer.param_groups) else scheduler

    def with_override(self, override: Mapping[str, Any]) -> SchedulerFactory:
        """The schedule of groups whose rule says how theirs differs.

        Args:
            override: with a `name`, a schedule of its own, where `constant` keeps its lr unless it is given a
                `factor`; without, this one with other arguments.

        Raises:
            ConfigError: that is no schedule.
        """
        if "name" not in override:
            own = {"warmup_steps": self.warmup_steps, "total_steps": self.total_steps, **self.hyperparameters}
            return SchedulerFactory(**{**own, **override, "name": self.name, "interval": self.interval})
        kept = {"factor": 1.0} if override["name"] == "constant" else {}
        return SchedulerFactory(**{**kept, **override, "interval": self.interval})

    def needs_total_steps_for(self, optimizer: Optimizer) -> bool:
        """Whether it, or what a group's rule puts in its place, needs the length of the run from elsewhere.

        Raises:
            ConfigError: a group's rule does not go with this schedule.
        """
        return any(factory.needs_total_steps for _, factory in self._curves(optimizer))

    def _by_group(self, optimizer: Optimizer, total_steps: int | None) -> LRScheduler:
        curves = self._curves(optimizer)
        if len(curves) == 1 and curves[0][0].override is None:
            return self._whole(optimizer, total_steps)
        schedulers = []
        for view, factory in curves:
            with _of_rule(view.override, optimizer):
                schedulers.append(factory._whole(view, total_steps))
        return SchedulerByGroup(optimizer, [view for view, _ in curves], schedulers)

    def _curves(self, optimizer: Optimizer) -> list[tuple[GroupView, SchedulerFactory]]:
        """The curves that the groups follow, each with its schedule: rules may give some one of their own."""
        groups = optimizer.param_groups
        curves = []
        for override in _unique(group.get(SCHEDULE) for group in groups):
            with _of_rule(override, optimizer):
                factory = self if override is None else self.with_override(override)
            momenta = _unique(momentum_of(group) for group in groups if group.get(SCHEDULE) == override)
            if len(momenta) == 1 or not factory._may_cycle_momentum():
                curves.append((GroupView(optimizer, override, None), factory))
                continue
            # torch's would look for one kind of momentum in every group.
            for momentum in momenta:
                still = factory if momentum else factory._without_cycling()
                curves.append((GroupView(optimizer, override, momentum), still))
        return curves

    def _may_cycle_momentum(self) -> bool:
        inner = self._blocks() if self.info.blocks else []
        return "cycle_momentum" in self.info.hyperparameters or any(block._may_cycle_momentum() for block in inner)

    def _without_cycling(self) -> SchedulerFactory:
        still = copy(self)
        if "cycle_momentum" in self.info.hyperparameters:
            still.hyperparameters = {**self.hyperparameters, "cycle_momentum": None}
        return still

    def _whole(self, optimizer: Optimizer, total_steps: int | None) -> LRScheduler:
        pieces = self._pieces(optimizer, total_steps)
        if len(pieces) == 1:
            return pieces[0][1]
        return SequentialLR(optimizer, [piece for _, piece in pieces], milestones=[start for start, _ in pieces[1:]])

    def config(self, optimizer: Optimizer, total_steps: int | None = None) -> dict[str, Any]:
        """Lightning's scheduler dict, `{"scheduler": ..., "interval": ...}`, with the monitor where there is one.

        Raises:
            ConfigError: as when called; or `reduce_on_plateau` without a `monitor`.
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

    def _total(self, total_steps: int | None) -> int | None:
        total = self.total_steps if self.total_steps is not None else total_steps
        if self.needs_total_steps and total is None:
            raise ConfigError(
                f"scheduler.total_steps: {self.name} needs the length of the run. Type for example "
                "scheduler.total_steps: 1000, or build it with lightning_optim.configure_optimizers, which asks "
                "the trainer"
            )
        if total is not None and self.warmup_steps >= total:
            raise ConfigError(
                f"warmup_steps: {self.warmup_steps} leaves nothing of the run's {total} steps. Type fewer"
            )
        return total

    def _pieces(self, optimizer: Optimizer, total_steps: int | None) -> list[tuple[int, LRScheduler]]:
        """`(first step, schedule)` one after another: torch's SequentialLR cannot stand inside another."""
        total = self._total(total_steps)
        if not self.warmup_steps or self.info.own_warmup:
            return self._rest(optimizer, total, self.warmup_steps)
        rest = self._rest(optimizer, total and total - self.warmup_steps, 0)
        warmup = LambdaLR(optimizer, Warmup(self.warmup_steps))
        return [(0, warmup), *((self.warmup_steps + start, piece) for start, piece in rest)]

    def _rest(self, optimizer: Optimizer, total: int | None, warmup_steps: int) -> list[tuple[int, LRScheduler]]:
        if self.name != "sequential":
            return [(0, self._build(optimizer, total, warmup_steps))]
        milestones = self._arguments()["milestones"]
        if total is not None and milestones[-1] >= total:
            raise ConfigError(
                f"milestones: the last, {milestones[-1]}, is not before the end of the run, {total} steps"
            )
        pieces = []
        for index, (block, (start, end)) in enumerate(
            zip(self._blocks(), pairwise([0, *milestones, total]), strict=True)
        ):
            with _within(index):
                inner = block._pieces(optimizer, None if end is None else end - start)
            pieces += [(start + at, piece) for at, piece in inner if end is None or start + at < end]
        return pieces

    def _build(self, optimizer: Optimizer, total: int | None, warmup_steps: int) -> LRScheduler:
        info, arguments = self.info, self._arguments()
        module, _, name = info.path.partition(":")
        cls = getattr(import_module(module), name)
        if info.blocks:
            chained: LRScheduler = cls([block._whole(optimizer, total) for block in self._blocks()], optimizer)
            return chained
        if info.function:
            scheduler: LRScheduler = cls(optimizer, self.hyperparameters["lr_lambda"])
            return scheduler
        if info.length is not None and arguments.get(info.length) is None:
            arguments[info.length] = total
        if info.own_warmup:
            return LambdaLR(
                optimizer, cls(warmup_steps=warmup_steps, **curve_arguments(self.name, arguments, warmup_steps))
            )
        if self.name == "one_cycle" and arguments["pct_start"] * arguments["total_steps"] == 1:
            raise ConfigError("pct_start: a climb of one step has no length. Type pct_start: 0, or a larger one")
        if "cycle_momentum" in arguments:
            arguments |= peak_arguments(optimizer, arguments)
        arguments.pop("monitor", None)
        scheduler = cls(optimizer, **arguments)
        return scheduler

    def _arguments(self) -> dict[str, Any]:
        """Every hyperparameter, checked, with defaults."""
        return {
            key: spec.check(self.hyperparameters[key], key) if key in self.hyperparameters else spec.default
            for key, spec in self.info.hyperparameters.items()
        }

    def _blocks(self) -> list[SchedulerFactory]:
        blocks = []
        for index, block in enumerate(self.hyperparameters["schedulers"]):
            with _within(index):
                if "name" not in block:
                    raise ConfigError(f"name: a block needs one. There are: {', '.join(sorted(SCHEDULES))}")
                blocks.append(SchedulerFactory(**block))
        return blocks

    def _open_blocks(self) -> list[SchedulerFactory]:
        """The blocks whose length the milestones do not give."""
        return self._blocks()[-1:] if self.name == "sequential" else self._blocks()

    def _check(self) -> None:
        info = self.info
        self._check_keys(info)
        if self.interval not in _INTERVALS:
            raise ConfigError(
                f"interval: there is no interval {self.interval!r}.{choices(str(self.interval), _INTERVALS)}"
            )
        self.warmup_steps = Number(default=0, low=0, integer=True).check(self.warmup_steps, "warmup_steps")
        total_steps = Number(default=1000, low=1, integer=True, optional=True)
        self.total_steps = total_steps.check(self.total_steps, "total_steps")
        for key, spec in info.hyperparameters.items():
            if spec.required and key not in self.hyperparameters:
                raise ConfigError(f"{key}: {self.name} needs it: {spec.describe()} ({spec.help})")
        self._arguments()
        if info.blocks:
            self._check_blocks()
        if info.function and not callable(self.hyperparameters.get("lr_lambda")):
            raise ConfigError(
                f"lr_lambda: {self.name} takes a function, which a config cannot hold. From Python: "
                f"SchedulerFactory({self.name!r}, lr_lambda=...); in a config, take name: warmup_cosine, linear, ..."
            )
        if info.needs_warmup and not self.warmup_steps:
            raise ConfigError(f"warmup_steps: {self.name} needs a warm-up. Type for example warmup_steps: 4000")
        if self.warmup_steps and not info.own_warmup and not info.wrappable:
            raise ConfigError(f"warmup_steps: {self.name} takes none. Type warmup_steps: 0, or another schedule")
        if self.total_steps is not None and info.length and self.hyperparameters.get(info.length) is not None:
            raise ConfigError(
                f"total_steps: {info.length} says the same. Type total_steps: null, or {info.length}: null"
            )
        if self.total_steps is not None and not self._takes_total_steps():
            raise ConfigError(f"total_steps: {self.name} does not depend on it. Type total_steps: null")

    def _check_keys(self, info: ScheduleInfo) -> None:
        known = [
            *info.hyperparameters,
            *(["schedulers"] if info.blocks else []),
            *(["lr_lambda"] if info.function else []),
        ]
        for key in self.hyperparameters:
            if key == "optimizer":
                raise ConfigError(
                    "optimizer: the factory takes it when it is called, not when it is made: a _partial_: true is left "
                    "over in the config. Type _partial_: false"
                )
            if key in _PEAK_ARGUMENTS:
                raise ConfigError(
                    f"{key}: not taken, since each group's lr is its peak. Set optimizer.lr, and remove {key}"
                )
            if key in _LENGTH_ARGUMENTS:
                raise ConfigError(f"{key}: not taken. Type total_steps, or leave the length of the run to the trainer")
            if key not in known:
                everything = [*known, "interval", "warmup_steps", "total_steps"]
                raise ConfigError(
                    f"{key}: {self.name} has no argument {key!r}."
                    f"{leftover_hint(key, schedules_with(key))}{choices(key, everything)}"
                )

    def _check_blocks(self) -> None:
        given = self.hyperparameters.get("schedulers")
        if not isinstance(given, list) or not given or not all(isinstance(block, Mapping) for block in given):
            raise ConfigError(
                f"schedulers: got {given!r}. {self.name} takes a list of blocks, "
                "for example schedulers: [{name: linear, total_iters: 10}, {name: cosine_annealing}]"
            )
        for index, (raw, block) in enumerate(zip(given, self._blocks(), strict=True)):
            if not block.info.wrappable:
                raise ConfigError(f"schedulers[{index}].name: {block.name} cannot stand inside {self.name}")
            if self.name == "chained" and (block.warmup_steps or not block.info.multiplies):
                raise ConfigError(
                    f"schedulers[{index}].{'warmup_steps' if block.warmup_steps else 'name'}: {block.name} sets the lr "
                    "anew at each step, where the factors of chained multiply"
                )
            if "interval" in raw:
                raise ConfigError(
                    f"schedulers[{index}].interval: blocks share the interval of {self.name}. Move it there"
                )
        if self.name == "sequential" and len(given) != len(self.hyperparameters["milestones"]) + 1:
            raise ConfigError(
                f"milestones: {len(given)} schedulers need {len(given) - 1} milestones, not "
                f"{len(self.hyperparameters['milestones'])}"
            )

    def _takes_total_steps(self) -> bool:
        if self.info.blocks:
            return any(block._takes_total_steps() for block in self._open_blocks())
        return self.info.length is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SchedulerFactory) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        shown = {"interval": self.interval, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
        arguments = {**shown, **self.hyperparameters}
        return f"SchedulerFactory({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in arguments.items())])})"


@contextmanager
def _of_rule(override: Mapping[str, Any] | None, optimizer: Optimizer) -> Iterator[None]:
    """Where a rule varies the schedule, say for which groups."""
    try:
        yield
    except ConfigError as error:
        if override is None:
            raise
        names = [str(group.get("name")) for group in optimizer.param_groups if group.get(SCHEDULE) == override]
        raise ConfigError(f"schedule.{error} (the rule's, of the param groups {format_names(names, 3)})") from None


def _unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order; a override is a mapping, which has no hash."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


@contextmanager
def _within(index: int) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"schedulers[{index}].{error}") from None


torch.serialization.add_safe_globals([SchedulerFactory])
