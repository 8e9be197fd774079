"""Parse the triggers in a stage's `at` and `each`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Choice, Number
from .plateau import Plateau
from .triggers import (
    After,
    AfterFraction,
    AnyOf,
    AtEpoch,
    AtFraction,
    AtStep,
    FromStart,
    OnPlateau,
    Trigger,
    UserFunction,
)

_KINDS = ("epoch", "step", "fraction", "plateau", "after", "any")
_UNITS = ("epochs", "steps", "fraction")
_EACH_KINDS = ("epochs", "steps", "plateau", "fraction")

_POSITION = Number(default=1, low=0, integer=True)
_DISTANCE = Number(default=1, low=1, integer=True)
_FRACTION_AFTER = Number(default=0.1, low=0, open_low=True, high=1, open_high=True)
_FRACTION = Number(default=0.5, low=0, high=1, open_high=True)
_PLATEAU_OPTIONS = {
    "patience": Number(default=3, low=1, integer=True),
    "mode": Choice(default="min", options=("min", "max")),
    "min_delta": Number(default=0.0, low=0),
}


def parse_trigger(given: Any, key: str) -> Trigger:
    """The trigger in a stage's `at`.

    Args:
        given: the value in the config: None, a mapping with one trigger, or a callable.
        key: of the value in the config.

    Raises:
        ConfigError: it is not a trigger.
    """
    if given is None:
        return FromStart()
    if callable(given):
        return UserFunction(given)
    example = f"A trigger is one of {', '.join(_KINDS)}, for example at: {{epoch: 1}}; "
    kind, value = _parse_single(given, key, _KINDS, example)
    if kind == "any":
        return _parse_any(value, f"{key}.any")
    if kind == "plateau":
        return OnPlateau(_parse_plateau(value, f"{key}.plateau"))
    if kind == "after":
        return _parse_after(value, f"{key}.after")
    if kind == "fraction":
        fraction = _FRACTION.check(value, f"{key}.fraction")
        return AtFraction(fraction, f"{key}.fraction") if fraction else FromStart()
    position = _POSITION.check(value, f"{key}.{kind}")
    if not position:
        return FromStart()
    return AtEpoch(position) if kind == "epoch" else AtStep(position)


def parse_each(given: Any, key: str) -> LayerTriggers:
    """The triggers in a stage's `each`.

    Raises:
        ConfigError: it is not an `each`.
    """
    triggers = LayerTriggers(given, key)
    triggers("the previous layer")  # checks the value
    return triggers


@dataclass(frozen=True)
class LayerTriggers:
    """The triggers of a stage that thaws layer by layer; called with the name of the previous layer.

    Args:
        given: the value of `each` in the config.
        key: of the value in the config.
    """

    given: Any
    key: str

    def __call__(self, previous: str) -> Trigger:
        """The trigger of the layer after `previous`."""
        kind, value = _parse_single(self.given, self.key, _EACH_KINDS, _format_example(_EACH_KINDS, "each"))
        if kind == "plateau":
            return OnPlateau(_parse_plateau(value, f"{self.key}.plateau"))
        return _build_after(value, kind, self.key, previous)


def _parse_any(given: Any, key: str) -> Trigger:
    if not isinstance(given, (list, tuple)) or not given:
        raise ConfigError(f"{key}: got {given!r}. It takes a list of triggers, for example any: [{{epoch: 1}}]")
    for index, trigger in enumerate(given):
        if trigger is None:
            raise ConfigError(f"{key}[{index}]: got None. Type a trigger, for example {{epoch: 1}}")
    return AnyOf(tuple(parse_trigger(trigger, f"{key}[{index}]") for index, trigger in enumerate(given)))


def _parse_after(given: Any, key: str) -> Trigger:
    unit, count = _parse_single(given, key, _UNITS, _format_example(_UNITS, "after"))
    return _build_after(count, unit, key, "the stage above")


def _build_after(value: Any, unit: str, key: str, previous: str) -> Trigger:
    key = f"{key}.{unit}"
    if unit == "fraction":
        return AfterFraction(_FRACTION_AFTER.check(value, key), key, previous)
    return After(_DISTANCE.check(value, key), unit, previous)


def _parse_plateau(given: Any, key: str) -> Plateau:
    known = ("monitor", *_PLATEAU_OPTIONS)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: got {given!r}. It takes a mapping, for example plateau: {{monitor: val/loss, patience: 2}}"
        )
    for name in given:
        if name not in known:
            raise ConfigError(f"{key}.{name}: a plateau has no key {name!r}.{format_choices(str(name), known)}")
    monitor = given.get("monitor")
    if not isinstance(monitor, str) or not monitor:
        raise ConfigError(f"{key}.monitor: got {monitor!r}. Type the name of a logged metric, for example val/loss")
    options = {
        name: spec.check(given[name], f"{key}.{name}")
        for name, spec in _PLATEAU_OPTIONS.items()
        if given.get(name) is not None
    }
    return Plateau(monitor=monitor, key=f"{key}.monitor", **options)


def _parse_single(given: Any, key: str, known: tuple[str, ...], example: str) -> tuple[str, Any]:
    """The name and value of a mapping's only entry that is not null."""
    # `at.epoch=null +at.step=500` on the command line replaces the trigger of a preset.
    entries = {str(k): v for k, v in given.items() if v is not None} if isinstance(given, Mapping) else {}
    for name in entries:
        if name not in known:
            raise ConfigError(f"{key}.{name}: there is no trigger {name!r}.{format_choices(name, known)}")
    if len(entries) != 1:
        hint = ""
        if len(entries) > 1:
            *replaced, last = entries
            nulls = " ".join(f"{key}.{name}=null" for name in replaced)
            hint = f". To have {last} instead of a preset's trigger, add on the command line {nulls}"
            if known == _KINDS:
                hint += ". To thaw at the first of several, type at: {any: [{epoch: 1}, {step: 500}]}"
        raise ConfigError(f"{key}: got {given!r}. {example}to use none, leave {key} out{hint}")
    ((name, value),) = entries.items()
    return name, value


def _format_example(known: tuple[str, ...], key: str) -> str:
    return f"It is one of {', '.join(known)}, for example {key}: {{epochs: 1}}; "
