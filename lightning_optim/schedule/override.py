"""The `schedule:` of a rule: how the schedule of its groups differs from the run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.config_values import to_plain, to_yaml
from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Number
from .catalog import SCHEDULES
from .config import OF_THE_RUN
from .factory import SchedulerFactory
from .warmup import WARMUP_SPECS, check_warmup

_LENGTHS = {**WARMUP_SPECS, "total_steps": Number(default=1000, low=1, integer=True, optional=True)}
_EXAMPLE = "schedule: constant, or schedule: {warmup_steps: 500}"


def parse_override(given: Any, key: str) -> dict[str, Any]:
    """The `schedule` of a rule as keyword arguments of a `SchedulerFactory`.

    With a `name` it is a schedule of its own; without, the run's schedule with other arguments. `constant` keeps the
    group's lr unless `factor` is given.

    Args:
        given: a schedule's name, or a mapping.
        key: of the value in the config.

    Raises:
        ConfigError: the value is wrong in itself. Whether it fits the run's schedule is checked when that is built.
    """
    override = {"name": given} if isinstance(given, str) else to_plain(given)
    if not isinstance(override, Mapping) or not override:
        raise ConfigError(f"{key}: got {given!r}, which is not a schedule. Type for example {_EXAMPLE}")
    for of_the_run in OF_THE_RUN:
        if of_the_run in override:
            raise ConfigError(f"{key}.{of_the_run}: it is the same for all groups. Set it in the scheduler's config")
    if "name" in override:
        _check_named(override, key)
        return dict(override)
    for argument, value in override.items():
        _check_argument(str(argument), value, f"{key}.{argument}")
    check_warmup(override, f"{key}.")
    return dict(override)


def format_override(override: Mapping[str, Any] | None) -> str:
    """An override as the group table shows it; '' for None."""
    if override is None:
        return ""
    return str(override["name"]) if list(override) == ["name"] else to_yaml(override)


def _check_named(override: Mapping[str, Any], key: str) -> None:
    try:
        config = SchedulerFactory("constant").with_override(override)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    if config.info.takes_function or config.name == "reduce_on_plateau":
        raise ConfigError(
            f"{key}.name: {config.name} cannot differ by group. Use it for the whole run, in the scheduler's config"
        )


def _check_argument(argument: str, value: Any, key: str) -> None:
    """Check that at least one schedule takes the argument and the value; the run's schedule is not known here."""
    specs = [info.hyperparameters[argument] for info in SCHEDULES.values() if argument in info.hyperparameters]
    if argument in _LENGTHS:
        specs = [_LENGTHS[argument]]
    if not specs:
        known = dict.fromkeys(
            ("name", *_LENGTHS, *(name for info in SCHEDULES.values() for name in info.hyperparameters))
        )
        raise ConfigError(f"{key}: no schedule has an argument {argument!r}.{format_choices(argument, known)}")
    errors: list[ConfigError] = []
    for spec in specs:
        try:
            spec.check(value, key)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == len(specs):
        raise errors[0]
