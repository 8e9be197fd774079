"""A schedule as a config describes it: its fields, and the checks that need neither an optimizer nor a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..core.config_values import read_attributes, to_plain
from ..core.errors import ConfigError, explain_call, find_source, format_choices, leftover_hint, requires_name
from ..core.hyperparameters import Number
from ..core.printable import to_printable
from ..core.short_repr import format_call, settings_html
from .also import needs_length, parse_also
from .catalog import FLOORS, SCHEDULES, ScheduleInfo, schedule_info, schedules_with
from .warmup import WARMUP_SPECS, check_warmup

_INTERVALS = ("step", "epoch")
_ON_RESUME = ("continue", "extend", "restart")
OF_THE_RUN = ("interval", "on_resume", "also")
"""What holds for the whole run, and so for every block and every rule."""
_PEAK_ARGUMENTS = ("max_lr", "max_lrs")
_LENGTH_ARGUMENTS = ("epochs", "steps_per_epoch")


class ScheduleConfig:
    """The checked config of one schedule; `SchedulerFactory` documents the arguments."""

    # Factories pickled by older versions have no such attributes.
    warmup_fraction: float | None = None
    warmup_epochs: float | None = None
    on_resume: str = "continue"
    also: dict[str, dict[str, Any]] | None = None

    @requires_name(example="warmup_cosine", argument="optimizer")
    def __init__(
        self,
        /,
        name: str,
        *,
        interval: str = "step",
        warmup_steps: int = 0,
        warmup_fraction: float | None = None,
        warmup_epochs: float | None = None,
        total_steps: int | None = None,
        on_resume: str = "continue",
        also: Mapping[str, Any] | None = None,
        **hyperparameters: Any,
    ) -> None:
        self.name = to_plain(name, "name")
        self.interval = to_plain(interval, "interval")
        self.warmup_steps = warmup_steps
        self.warmup_fraction = warmup_fraction
        self.warmup_epochs = warmup_epochs
        self.total_steps = total_steps
        self.on_resume = to_plain(on_resume, "on_resume")
        self.also = parse_also(also)
        self.hyperparameters: dict[str, Any] = to_plain(hyperparameters)
        self._check()

    def __setstate__(self, state: Any) -> None:
        """Restore it from a pickle, such as a checkpoint, and check it like a new one."""
        plain = read_attributes(state, {"name": str, "interval": str, "hyperparameters": dict})
        known = ("name", "hyperparameters", *OF_THE_RUN, *WARMUP_SPECS, "total_steps")
        vars(self).update({"total_steps": None, "warmup_steps": 0})
        vars(self).update({key: plain[key] for key in known if key in plain})
        try:
            self._check()
        except ConfigError as error:
            raise ConfigError(to_printable(str(error))) from None

    @property
    def info(self) -> ScheduleInfo:
        """The schedule's entry in the catalog."""
        return schedule_info(self.name)

    @property
    def warmup(self) -> dict[str, Any]:
        """The values of the keys that give the length of the warm-up."""
        return {key: getattr(self, key) for key in WARMUP_SPECS}

    @property
    def has_warmup(self) -> bool:
        """Whether there is a warm-up."""
        return any(self.warmup.values())

    @property
    def needs_steps_per_epoch(self) -> bool:
        """Whether the schedule depends on the number of optimizer steps in an epoch."""
        return bool(self.warmup_epochs) and self.interval == "step"

    @property
    def needs_total_steps(self) -> bool:
        """Whether the schedule depends on the length of the run and the config does not set it."""
        if self.total_steps is not None:
            return False
        if self.warmup_fraction or needs_length(self.also):
            return True
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
                    raise ConfigError(f"name: a block needs a name. Available: {', '.join(sorted(SCHEDULES))}")
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
            own = {"total_steps": self.total_steps, **self.hyperparameters}
            if not override.keys() & WARMUP_SPECS.keys():
                own |= self.warmup
            return ScheduleConfig(**{**own, **override, "name": self.name, "interval": self.interval})
        defaults = {"factor": 1.0} if override["name"] == "constant" else {}
        return ScheduleConfig(**{**defaults, **override, "interval": self.interval})

    def _blocks_without_length(self) -> list[ScheduleConfig]:
        """The blocks whose length does not follow from the milestones."""
        return self.blocks()[-1:] if self.name == "sequential" else self.blocks()

    def _takes_total_steps(self) -> bool:
        if self.warmup_fraction or needs_length(self.also):
            return True
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
        if self.on_resume not in _ON_RESUME:
            raise ConfigError(
                f"on_resume: there is no {self.on_resume!r}.{format_choices(str(self.on_resume), _ON_RESUME)}"
            )
        for key, value in check_warmup(self.warmup).items():
            setattr(self, key, value)
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
                raise ConfigError(f"optimizer: {explain_call('optimizer')}")
            if key in _PEAK_ARGUMENTS:
                raise ConfigError(
                    f"{key}: not accepted, because each group's lr is its peak. Set optimizer.lr, and remove {key}"
                )
            if key in _LENGTH_ARGUMENTS:
                raise ConfigError(f"{key}: not accepted. Type total_steps, or let the trainer give the run's length")
            if key not in known:
                everything = [*known, "interval", *WARMUP_SPECS, "total_steps", *OF_THE_RUN[1:]]
                raise ConfigError(
                    f"{key}: {self.name} has no argument {key!r}."
                    f"{leftover_hint(key, schedules_with(key), self._explain_source(key))}"
                    f"{format_choices(key, everything)}"
                )

    def _explain_source(self, key: str) -> str:
        """The config that a key is left over from, where the schedule was changed by `name`; '' where it is none."""
        configs = {
            name: {k: spec.default for k, spec in info.hyperparameters.items()} for name, info in SCHEDULES.items()
        }
        source = find_source(key, self.hyperparameters, configs)
        if source is None:
            return ""
        return f"the config scheduler/{source}? Then choose scheduler={self.name} instead of setting name: {self.name}."

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
            if self.name == "chained":
                reason = block._reason_not_to_chain()
                if reason:
                    raise ConfigError(
                        f"schedulers[{index}].{reason}: {block.name} sets the lr at each step, while chained "
                        "multiplies the factors of its blocks"
                    )
            for key in ("warmup_fraction", "warmup_epochs"):
                if raw.get(key):
                    raise ConfigError(f"schedulers[{index}].{key}: a block cannot have it. Type warmup_steps: 500")
            for key in OF_THE_RUN:
                if key in raw:
                    raise ConfigError(
                        f"schedulers[{index}].{key}: all blocks have the {key} of {self.name}. Move it there"
                    )
        if self.name == "sequential" and len(given) != len(self.hyperparameters["milestones"]) + 1:
            raise ConfigError(
                f"milestones: {len(given)} schedulers need {len(given) - 1} milestones, not "
                f"{len(self.hyperparameters['milestones'])}"
            )

    def _reason_not_to_chain(self) -> str | None:
        """The key that makes the schedule set the lr, where a block of `chained` must multiply it."""
        if self.has_warmup:
            return next(key for key, value in self.warmup.items() if value)
        if self.info.scaled_path is not None and self.hyperparameters.get("final_scale") is not None:
            return "final_scale"
        return None if self.info.chainable else "name"

    def _check_lengths(self, info: ScheduleInfo) -> None:
        """Check that warm-up and `total_steps` are set where needed, and not set where unused."""
        if info.needs_warmup and not self.has_warmup:
            raise ConfigError(f"warmup_steps: {self.name} needs a warm-up. Type for example warmup_steps: 4000")
        if self.has_warmup and not info.takes_warmup_steps and not info.composable:
            key = next(key for key, value in self.warmup.items() if value)
            none = 0 if key == "warmup_steps" else "null"
            raise ConfigError(f"{key}: {self.name} does not take it. Type {key}: {none}, or another schedule")
        floor = next((key for key in FLOORS if self.hyperparameters.get(key)), None)
        if floor and self.hyperparameters.get("final_scale") is not None:
            raise ConfigError(f"final_scale: {floor} sets the lowest lr too. Type {floor}: 0 or final_scale: null")
        if self.total_steps is None:
            return
        length_is_set = info.length_argument and self.hyperparameters.get(info.length_argument) is not None
        if length_is_set and not self.warmup_fraction and not needs_length(self.also):
            raise ConfigError(
                f"total_steps: {info.length_argument} sets the same length. Type total_steps: null, or "
                f"{info.length_argument}: null"
            )
        if not self._takes_total_steps():
            raise ConfigError(f"total_steps: {self.name} does not depend on it. Type total_steps: null")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleConfig) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return format_call(self, self.name, **self._shown_fields())

    def _repr_html_(self) -> str:
        return settings_html(f"{type(self).__name__}: {self.name}", self._shown_fields())

    def _shown_fields(self) -> dict[str, Any]:
        rarely_set = ("warmup_fraction", "warmup_epochs", "on_resume", "also")
        return {
            key: value
            for key, value in self._fields().items()
            if key != "name" and not (key in rarely_set and value == getattr(ScheduleConfig, key))
        }

    def _fields(self) -> dict[str, Any]:
        lengths = {"interval": self.interval, **self.warmup, "total_steps": self.total_steps}
        return {"name": self.name, **lengths, "on_resume": self.on_resume, "also": self.also, **self.hyperparameters}


@contextmanager
def prefix_block_errors(index: int) -> Iterator[None]:
    """Prefixes a ConfigError raised inside with the key of the block at this position."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"schedulers[{index}].{error}") from None
