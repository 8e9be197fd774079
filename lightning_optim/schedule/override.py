"""`schedule:` in a rule: what differs from the schedule that holds for the rest of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.config_values import to_plain, to_yaml
from ..core.errors import ConfigError, choices
from ..core.hyperparameters import Number
from .catalog import SCHEDULES
from .factory import SchedulerFactory

_LENGTHS = {
    "warmup_steps": Number(default=100, low=0, integer=True),
    "total_steps": Number(default=1000, low=1, integer=True, optional=True),
}
_EXAMPLE = "schedule: constant, or schedule: {warmup_steps: 500}"


def parse_override(given: Any, key: str) -> dict[str, Any]:
    """What a rule's `schedule` says, as keyword arguments of a `SchedulerFactory`.

    With a `name` it is a schedule of its own; without, the run's schedule with other arguments. `constant` is the
    group's lr, unless it is given a `factor`.

    Args:
        given: a schedule's name, or a mapping.
        key: where it stands in the config.

    Raises:
        ConfigError: it is wrong in itself; what depends on the run's schedule is found when that is built.
    """
    override = {"name": given} if isinstance(given, str) else to_plain(given)
    if not isinstance(override, Mapping) or not override:
        raise ConfigError(f"{key}: got {given!r}, which is no schedule. Type for example {_EXAMPLE}")
    if "interval" in override:
        raise ConfigError(f"{key}.interval: it is the same for all groups. Set it in the scheduler's config")
    if "name" in override:
        _check_named(override, key)
        return dict(override)
    for argument, value in override.items():
        _check_argument(str(argument), value, f"{key}.{argument}")
    return dict(override)


def format_override(override: Mapping[str, Any] | None) -> str:
    """A override as the group table shows it; '' for none."""
    if override is None:
        return ""
    return str(override["name"]) if list(override) == ["name"] else to_yaml(override)


def _check_argument(argument: str, value: Any, key: str) -> None:
    """Whether some schedule could take it; the run's is not known here."""
    takers = [info.hyperparameters[argument] for info in SCHEDULES.values() if argument in info.hyperparameters]
    if argument in _LENGTHS:
        takers = [_LENGTHS[argument]]
    if not takers:
        known = dict.fromkeys(
            ("name", *_LENGTHS, *(name for info in SCHEDULES.values() for name in info.hyperparameters))
        )
        raise ConfigError(f"{key}: no schedule has an argument {argument!r}.{choices(argument, known)}")
    wrong: list[ConfigError] = []
    for spec in takers:
        try:
            spec.check(value, key)
        except ConfigError as error:
            wrong.append(error)
    if len(wrong) == len(takers):
        raise wrong[0]


def _check_named(override: Mapping[str, Any], key: str) -> None:
    try:
        factory = SchedulerFactory("constant").with_override(override)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    if factory.info.function or factory.name == "reduce_on_plateau":
        raise ConfigError(
            f"{key}.name: {factory.name} cannot differ by group. Take it for the whole run, in the scheduler's config"
        )
