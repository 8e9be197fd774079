"""`also`: what a schedule drives besides lr, each on a curve of its own: weight decay, momentum and the betas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.config_values import to_plain, to_yaml
from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Number

Also = Mapping[str, Mapping[str, Any]]
"""By key of a param group: the arguments of its curve, all of them, with null for those that are not set."""

_EXAMPLE = "also: {weight_decay: {name: cosine, final: 0.4}}"
_SCALE = {
    end: Number(default=None, low=0, optional=True, help=f"or: the {end} value as a multiple of each group's own")
    for end in ("start", "final")
}
_DECAY = Number(default=None, low=0, optional=True)
_MOMENTUM = Number(default=None, low=0, high=1, open_high=True, optional=True)
_VALUES = {"weight_decay": _DECAY, "momentum": _MOMENTUM, "beta1": _MOMENTUM, "beta2": _MOMENTUM}
_STEPS = Number(default=None, low=1, integer=True, optional=True)
_CURVES = ("cosine", "linear")
_ENDS = ("start", "final", "start_scale", "final_scale")
ARGUMENTS = ("name", *_ENDS, "steps")


def parse_also(given: Any) -> dict[str, dict[str, Any]] | None:
    """The value of `also`, checked; None where nothing is driven.

    Args:
        given: by `weight_decay`, `momentum`, `beta1` or `beta2`: a mapping with the curve's `name`, where it starts
            (`start`, or `start_scale` as a multiple of each group's configured value; by default that value), where it
            ends (`final` or `final_scale`, likewise), and its `steps`, by default those of the run.

    Raises:
        ConfigError: a key is unknown, a value is wrong, or the curve would end where it starts.
    """
    given = to_plain(given, "also")
    if not given and (given is None or isinstance(given, Mapping)):
        return None
    if not isinstance(given, Mapping):
        raise ConfigError(f"also: got {given!r}, which is not a mapping. Type for example {_EXAMPLE}")
    return {key: _parse_curve(key, curve) for key, curve in given.items()}


def needs_length(also: Also | None) -> bool:
    """Whether a curve lasts as long as the run."""
    return any(curve["steps"] is None for curve in (also or {}).values())


def resolve_also(also: Also | None, total_steps: int | None) -> dict[str, dict[str, Any]]:
    """The same with the number of steps of every curve.

    Raises:
        ConfigError: the length of the run is needed and not known.
    """
    resolved = {}
    for key, curve in (also or {}).items():
        steps = curve["steps"] if curve["steps"] is not None else total_steps
        if steps is None:
            raise ConfigError(
                f"also.{key}.steps: the length of the run is not known here. Type for example also.{key}.steps: 1000, "
                "or build the scheduler with lightning_optim.configure_optimizers, which asks the trainer"
            )
        resolved[key] = {**curve, "steps": steps}
    return resolved


def find_ends(curve: Mapping[str, Any], configured: float) -> tuple[float, float]:
    """The first and the last value of a group's curve; a group whose configured value is 0 keeps it.

    Args:
        curve: of the key.
        configured: the group's value in the config.
    """
    if configured == 0:
        return 0.0, 0.0
    return _find_end(curve, "start", configured), _find_end(curve, "final", configured)


def value_at(curve: Mapping[str, Any], configured: float, step: int) -> float:
    """A group's value after this many steps: v₁ + (v₀ - v₁) (1 + cos π t/T) / 2, or v₀ + (v₁ - v₀) t/T.

    The cosine is DINO's schedule of weight decay (arXiv:2104.14294, section 3.2). After T steps it stays at v₁.

    Args:
        curve: resolved.
        configured: the group's value in the config.
        step: t, the number of steps done.
    """
    start, final = find_ends(curve, configured)
    if step >= curve["steps"]:
        return final
    if step <= 0 or start == final:
        return start
    done: float = step / curve["steps"]
    if curve["name"] == "cosine":
        return final + (start - final) * (1 + math.cos(math.pi * done)) / 2
    return start + (final - start) * done


def describe_curve(key: str, curve: Mapping[str, Any]) -> str:
    """What a curve does, in a line."""
    steps = "the run" if curve["steps"] is None else f"{curve['steps']} steps"
    return f"{key}: {curve['name']} over {steps}"


def _find_end(curve: Mapping[str, Any], end: str, configured: float) -> float:
    if curve[end] is not None:
        return float(curve[end])
    scale: float | None = curve[f"{end}_scale"]
    return configured if scale is None else configured * scale


def _parse_curve(key: str, curve: Any) -> dict[str, Any]:
    where = f"also.{key}"
    if key == "lr":
        raise ConfigError(
            "also.lr: the schedule itself sets the lr. Remove also.lr, and set the arguments of the schedule"
        )
    if key == "betas":
        raise ConfigError("also.betas: each of the two has a curve of its own. Type also.beta1 or also.beta2")
    if key not in _VALUES:
        raise ConfigError(f"{where}: a schedule cannot set {key}.{format_choices(str(key), _VALUES)}")
    if not isinstance(curve, Mapping):
        raise ConfigError(
            f"{where}: got {to_yaml(curve)}, which is not a curve. Type for example {where}: {{name: cosine, "
            f"final: {0.4 if key == 'weight_decay' else 0.99}}}"
        )
    for argument in curve:
        if argument not in ARGUMENTS:
            raise ConfigError(
                f"{where}.{argument}: a curve has no argument {argument!r}.{format_choices(str(argument), ARGUMENTS)}"
            )
    name = curve.get("name")
    if name not in _CURVES:
        said = "a curve needs a name" if name is None else f"there is no curve {name!r}"
        raise ConfigError(f"{where}.name: {said}.{format_choices(str(name or ''), _CURVES)}")
    specs = {"start": _VALUES[key], "final": _VALUES[key], "steps": _STEPS}
    specs |= {f"{end}_scale": spec for end, spec in _SCALE.items()}
    values = {argument: specs[argument].check(curve.get(argument), f"{where}.{argument}") for argument in ARGUMENTS[1:]}
    for end in ("start", "final"):
        if values[end] is not None and values[f"{end}_scale"] is not None:
            raise ConfigError(f"{where}.{end}_scale: {end} sets the same value. Remove one of them")
    if all(values[end] is None for end in _ENDS):
        raise ConfigError(
            f"{where}.final: the curve would end where it starts. Type for example {where}.final_scale: 10, as a "
            "multiple of each group's own value"
        )
    return {"name": name, **values}
