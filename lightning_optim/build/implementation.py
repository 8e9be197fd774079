"""Whose code runs an algorithm, torch's class or ours, and the arguments that each class takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..catalog.info import DECOUPLED_KEY, OptimizerInfo
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_choices, format_names
from ..core.param_group_keys import EXECUTION_FLAGS

IMPLEMENTATIONS = ("auto", "torch", "own")
_MODE = "weight_decay_mode"
# The modes that torch's class has as the two values of its flag `decoupled_weight_decay`.
_FLAG_MODES = ("l2", "decoupled")


def needs_own_class(info: OptimizerInfo, implementation: str, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether our class runs an algorithm; under `auto`, torch's does where it can do what is asked.

    Args:
        info: the algorithm.
        implementation: `auto`, `torch` or `own`.
        settings: hyperparameters by the prefix of their config keys: '' at the top level, `groups.head.` in a rule.

    Raises:
        ConfigError: the class asked for does not exist or cannot do what is asked, or neither class can.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(
            f"implementation: got {implementation!r}.{format_choices(str(implementation), IMPLEMENTATIONS)}"
        )
    if not info.has_torch_class and implementation == "torch":
        raise ConfigError(f"implementation: torch has no {info.name}. Type implementation: auto")
    if not info.own and implementation == "own":
        raise ConfigError(f"implementation: there is no {info.name} of our own. Type implementation: auto")
    own_only, torch_only = (_keys_in_use(info, settings, keys) for keys in (info.own_only - {"fused"}, info.torch_only))
    fused = bool(settings[""].get("fused"))
    if fused and info.own and not info.fused:
        own_only.append("fused")  # only ours has a kernel
    own = info.is_native_only or implementation == "own" or (implementation == "auto" and bool(own_only))
    reason = f", and {format_names(own_only)} needs ours" if own_only and not info.is_native_only else ""
    if own and torch_only:
        raise ConfigError(f"{torch_only[0]}: torch's {info.name} takes it, ours does not{reason}. Remove one of them")
    if fused and not own and info.has_torch_class and not info.fused:
        advice = "implementation: auto" if info.own else "fused: null"
        raise ConfigError(f"fused: torch's {info.name} has no fused kernel. Type {advice}")
    if not own and own_only:
        raise ConfigError(f"{own_only[0]}: our {info.name} takes it, torch's does not. Type implementation: auto")
    return own


def constructor_arguments(own: bool, info: OptimizerInfo, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as arguments of our class, or of torch's."""
    arguments = info.resolve_decay_mode(values)
    if DECOUPLED_KEY in arguments and _MODE in arguments:
        arguments[DECOUPLED_KEY] = arguments[_MODE] == "decoupled"
    return {key: value for key, value in arguments.items() if key in info.signature(own=own)}


def check_torch_can_resume(info: OptimizerInfo, saved: Mapping[str, Any]) -> None:
    """Check that torch's class can continue from a param group that our class saved.

    Raises:
        ConfigError: it was trained with a value that torch's class does not support.
    """
    supported_modes = _FLAG_MODES if DECOUPLED_KEY in info.hyperparameters else (info.decay,)
    has_decay = saved.get("weight_decay") != 0
    for key in sorted(info.own_only.difference(EXECUTION_FLAGS)):
        if key == _MODE:
            is_supported = saved.get(key) in supported_modes or not has_decay
        else:
            is_supported = saved.get(key) == info.defaults[key]
        if key in saved and not is_supported:
            raise ConfigError(
                f"{key}: the checkpoint was trained with {key}: {to_yaml(saved[key])}, which torch's class does not "
                "have. Type implementation: own"
            )


def _keys_in_use(info: OptimizerInfo, settings: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> list[str]:
    """The config keys under which one of the hyperparameters is set to a value that the other class does not have."""
    return [
        f"{prefix}{key}"
        for key in sorted(keys)
        for prefix, values in settings.items()
        if key in values
        and values[key] != info.defaults[key]
        and not (key == _MODE and DECOUPLED_KEY in info.hyperparameters and values[key] in _FLAG_MODES)
    ]
