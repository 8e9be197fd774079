"""Whose code runs an optimizer: torch's class or ours, and the words that each takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..catalog.info import DECOUPLED_KEY, OptimizerInfo
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, choices, format_names

IMPLEMENTATIONS = ("auto", "torch", "own")
_MODE = "weight_decay_mode"
# What torch's class does by that flag, ours does by the mode.
_BY_FLAG = ("l2", "decoupled")


def uses_own_class(info: OptimizerInfo, implementation: str, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether our class runs it: torch's does where it can do what is asked.

    Args:
        info: the algorithm.
        implementation: `auto`, `torch` or `own`.
        settings: hyperparameters by where they are set: under '' at the top, under `groups.head.` in a rule.

    Raises:
        ConfigError: the class asked for is not there or cannot do what is asked, or neither can.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(
            f"implementation: there is no {implementation!r}.{choices(str(implementation), IMPLEMENTATIONS)}"
        )
    if not info.is_torchs and implementation == "torch":
        raise ConfigError(f"implementation: torch has no {info.name}. Type implementation: auto")
    if not info.own and implementation == "own":
        raise ConfigError(f"implementation: there is no {info.name} of our own. Type implementation: auto")
    for_ours, for_torchs = (_asked(info, settings, keys) for keys in (info.own_only - {"fused"}, info.torch_only))
    own = info.is_ours or implementation == "own" or (implementation == "auto" and bool(for_ours))
    reason = f", and {format_names(for_ours)} takes ours" if for_ours and not info.is_ours else ""
    if own and for_torchs:
        raise ConfigError(f"{for_torchs[0]}: torch's {info.name} takes it, ours does not{reason}. Remove one of them")
    if not own and for_ours:
        raise ConfigError(f"{for_ours[0]}: our {info.name} takes it, torch's does not. Type implementation: auto")
    if settings[""].get("fused") and (own or (info.is_torchs and not info.fused)):
        whose = "our" if own else "torch's"
        raise ConfigError(f"fused: {whose} {info.name} has no fused kernel{reason}. Type fused: null")
    return own


def constructor_arguments(own: bool, info: OptimizerInfo, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as the constructor of our class, or else torch's, takes them."""
    settled = info.with_decay_mode(values)
    if DECOUPLED_KEY in settled and _MODE in settled:
        settled[DECOUPLED_KEY] = settled[_MODE] == "decoupled"
    return {key: value for key, value in settled.items() if key in info.signature(own=own)}


def check_torch_can_resume(info: OptimizerInfo, saved: Mapping[str, Any]) -> None:
    """Whether torch's class can go on from a param group that our class saved.

    Raises:
        ConfigError: it was trained with what torch's class does not have.
    """
    can = _BY_FLAG if DECOUPLED_KEY in info.hyperparameters else (info.decay,)
    decays = saved.get("weight_decay") != 0
    for key in sorted(info.own_only - {"fused"}):
        usual = (saved.get(key) in can or not decays) if key == _MODE else saved.get(key) == info.defaults[key]
        if key in saved and not usual:
            raise ConfigError(
                f"{key}: the checkpoint was trained with {key}: {to_yaml(saved[key])}, which torch's class does not "
                "have. Type implementation: own"
            )


def _asked(info: OptimizerInfo, settings: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> list[str]:
    """Where one of the keys is set to something else than what both classes do."""
    return [
        f"{where}{key}"
        for key in sorted(keys)
        for where, values in settings.items()
        if key in values
        and values[key] != info.defaults[key]
        and not (key == _MODE and DECOUPLED_KEY in info.hyperparameters and values[key] in _BY_FLAG)
    ]
