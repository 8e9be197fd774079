"""A schedule as a config describes it: its fields, and the checks that need neither an optimizer nor a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..core.config_values import to_plain
from ..core.errors import ConfigError, format_choices, leftover_hint, requires_name
from ..core.hyperparameters import Number
from .catalog import SCHEDULES, ScheduleInfo, schedule_info, schedules_with

_INTERVALS = ("step", "epoch")
_PEAK_ARGUMENTS = ("max_lr", "max_lrs")
_LENGTH_ARGUMENTS = ("epochs", "steps_per_epoch")


class ScheduleConfig:
    """The checked config of one schedule; `SchedulerFactory` documents the arguments."""

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
        """The schedule's entry in the catalog."""
        return schedule_info(self.name)

    @property
    def needs_total_steps(self) -> bool:
        """Whether the schedule depends on the length of the run and the config does not set it."""
        if self.total_steps is not None:
            return False
        if self.info.takes_blocks:
            return any(block.needs_total_steps for block in self._blocks_without_length())
        return self.info.length_argument is not None and self.hyperparameters.get(self.info.length_argument) is None

    def arguments(self) -> dict[str, Any]:
        """Every hyperparameter, checked, with the defaults of those that are not set."""
        return {
            key: spec.check(self.hyperparameters[key], key) if key in self.hyperparameters else spec.default
            for key, spec in self.info.hyperparameters.items()
        }

    def blocks(self) -> list[ScheduleConfig]:
        """The schedules under `schedulers`."""
        blocks = []
        for index, block in enumerate(self.hyperparameters["schedulers"]):
            with prefix_block_errors(index):
                if "name" not in block:
                    raise ConfigError(f"name: a block needs one. Available: {', '.join(sorted(SCHEDULES))}")
                blocks.append(ScheduleConfig(**block))
        return blocks

    def with_override(self, override: Mapping[str, Any]) -> ScheduleConfig:
        """The schedule of the groups whose rule sets `schedule:`.

        Args:
            override: with a `name`, a schedule of its own, where `constant` keeps the lr unless `factor` is given;
                without one, this schedule with other arguments.

        Raises:
            ConfigError: the result is not a valid schedule.
        """
        if "name" not in override:
            own = {"warmup_steps": self.warmup_steps, "total_steps": self.total_steps, **self.hyperparameters}
            return ScheduleConfig(**{**own, **override, "name": self.name, "interval": self.interval})
        defaults = {"factor": 1.0} if override["name"] == "constant" else {}
        return ScheduleConfig(**{**defaults, **override, "interval": self.interval})

    def _blocks_without_length(self) -> list[ScheduleConfig]:
        """The blocks whose length does not follow from the milestones."""
        return self.blocks()[-1:] if self.name == "sequential" else self.blocks()

    def _takes_total_steps(self) -> bool:
        if self.info.takes_blocks:
            return any(block._takes_total_steps() for block in self._blocks_without_length())
        return self.info.length_argument is not None

    def _check(self) -> None:
        info = self.info
        self._check_keys(info)
        if self.interval not in _INTERVALS:
            raise ConfigError(
                f"interval: there is no interval {self.interval!r}.{format_choices(str(self.interval), _INTERVALS)}"
            )
        self.warmup_steps = Number(default=0, low=0, integer=True).check(self.warmup_steps, "warmup_steps")
        total_steps = Number(default=1000, low=1, integer=True, optional=True)
        self.total_steps = total_steps.check(self.total_steps, "total_steps")
        for key, spec in info.hyperparameters.items():
            if spec.required and key not in self.hyperparameters:
                raise ConfigError(f"{key}: {self.name} needs it: {spec.describe()} ({spec.help})")
        self.arguments()
        if info.takes_blocks:
            self._check_blocks()
        if info.takes_function and not callable(self.hyperparameters.get("lr_lambda")):
            raise ConfigError(
                f"lr_lambda: {self.name} takes a function, which a config cannot hold. From Python: "
                f"SchedulerFactory({self.name!r}, lr_lambda=...); in a config, use name: warmup_cosine, linear, ..."
            )
        self._check_lengths(info)

    def _check_keys(self, info: ScheduleInfo) -> None:
        known = [
            *info.hyperparameters,
            *(["schedulers"] if info.takes_blocks else []),
            *(["lr_lambda"] if info.takes_function else []),
        ]
        for key in self.hyperparameters:
            if key == "optimizer":
                raise ConfigError(
                    "optimizer: the factory takes it when it is called, not when it is constructed: a _partial_: true "
                    "is left over in the config. Type _partial_: false"
                )
            if key in _PEAK_ARGUMENTS:
                raise ConfigError(
                    f"{key}: not accepted, because each group's lr is its peak. Set optimizer.lr, and remove {key}"
                )
            if key in _LENGTH_ARGUMENTS:
                raise ConfigError(f"{key}: not accepted. Type total_steps, or let the trainer give the run's length")
            if key not in known:
                everything = [*known, "interval", "warmup_steps", "total_steps"]
                raise ConfigError(
                    f"{key}: {self.name} has no argument {key!r}."
                    f"{leftover_hint(key, schedules_with(key))}{format_choices(key, everything)}"
                )

    def _check_blocks(self) -> None:
        given = self.hyperparameters.get("schedulers")
        if not isinstance(given, list) or not given or not all(isinstance(block, Mapping) for block in given):
            raise ConfigError(
                f"schedulers: got {given!r}. {self.name} takes a list of blocks, "
                "for example schedulers: [{name: linear, total_iters: 10}, {name: cosine_annealing}]"
            )
        for index, (raw, block) in enumerate(zip(given, self.blocks(), strict=True)):
            if not block.info.composable:
                raise ConfigError(f"schedulers[{index}].name: {block.name} cannot be a block of {self.name}")
            if self.name == "chained" and (block.warmup_steps or not block.info.chainable):
                raise ConfigError(
                    f"schedulers[{index}].{'warmup_steps' if block.warmup_steps else 'name'}: {block.name} sets the lr "
                    "at each step, while chained multiplies the factors of its blocks"
                )
            if "interval" in raw:
                raise ConfigError(
                    f"schedulers[{index}].interval: all blocks have the interval of {self.name}. Move it there"
                )
        if self.name == "sequential" and len(given) != len(self.hyperparameters["milestones"]) + 1:
            raise ConfigError(
                f"milestones: {len(given)} schedulers need {len(given) - 1} milestones, not "
                f"{len(self.hyperparameters['milestones'])}"
            )

    def _check_lengths(self, info: ScheduleInfo) -> None:
        """Check that warm-up and `total_steps` are set where needed, and not set where unused."""
        if info.needs_warmup and not self.warmup_steps:
            raise ConfigError(f"warmup_steps: {self.name} needs a warm-up. Type for example warmup_steps: 4000")
        if self.warmup_steps and not info.takes_warmup_steps and not info.composable:
            raise ConfigError(f"warmup_steps: {self.name} takes none. Type warmup_steps: 0, or another schedule")
        if self.total_steps is None:
            return
        if info.length_argument and self.hyperparameters.get(info.length_argument) is not None:
            raise ConfigError(
                f"total_steps: {info.length_argument} sets the same length. Type total_steps: null, or "
                f"{info.length_argument}: null"
            )
        if not self._takes_total_steps():
            raise ConfigError(f"total_steps: {self.name} does not depend on it. Type total_steps: null")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleConfig) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        lengths = {"interval": self.interval, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
        arguments = {**lengths, **self.hyperparameters}
        formatted = [repr(self.name), *(f"{key}={value!r}" for key, value in arguments.items())]
        return f"{type(self).__name__}({', '.join(formatted)})"


@contextmanager
def prefix_block_errors(index: int) -> Iterator[None]:
    """Prefixes a ConfigError raised inside with the key of the block at this position."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"schedulers[{index}].{error}") from None
