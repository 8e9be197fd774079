"""Which of the configs that this package ships an unknown key comes from, where the algorithm was changed by `name`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..catalog.built_in import BUILT_IN
from ..catalog.ready_configs import READY_CONFIGS
from ..core.config_values import to_plain
from ..core.errors import find_source
from ..groups.presets import PRESETS


def explain_source(key: str, name: str, hyperparameters: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    """The config that a key is left over from and what to type instead; '' where it is none of this package's.

    Args:
        key: the unknown key.
        name: the algorithm.
        hyperparameters: all keys at the top level.
        rules: by name.
    """
    given = {**hyperparameters, **{f"groups.{rule}": value for rule, value in rules.items()}}
    source = find_source(key, given, _configs())
    if source is None:
        return ""
    if name in BUILT_IN:
        return f"the config optimizer/{source}? Then choose optimizer={name} instead of setting name: {name}."
    return f"the config optimizer/{source}? Then remove it: ~optimizer.{key}."


@cache
def _configs() -> dict[str, dict[str, Any]]:
    """By name: the keys and values of each config of the group `optimizer`; its rules as `groups.NAME`."""
    configs = {name: to_plain(info.defaults) for name, info in BUILT_IN.items()}
    for name, ready in READY_CONFIGS.items():
        rules = [key for key, preset in PRESETS.items() if set(preset.names) & set(ready.rules)]
        configs[name] = {**configs[ready.algorithm], **ready.values, **dict.fromkeys(rules)}
    return configs
