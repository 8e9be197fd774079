"""The hyperparameters that a stage may set on the groups it thaws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..catalog.registry import algorithms_with, optimizer_info
from ..core.errors import ConfigError, choices


def check_known(given: Mapping[str, Any], key: str, words: Sequence[str]) -> None:
    """Whether these are hyperparameters of some optimizer, and such as a param group may have for itself.

    Raises:
        ConfigError: one is not.
    """
    for name, value in given.items():
        specs = [optimizer_info(algorithm).hyperparameters[name] for algorithm in algorithms_with(name)]
        if not specs:
            every = dict.fromkeys((*words, *(known for info in BUILT_IN.values() for known in _per_group(info))))
            raise ConfigError(f"{key}.{name}: a stage has no key {name!r}.{choices(name, every)}")
        if not any(spec.per_group for spec in specs):
            raise ConfigError(f"{key}.{name}: {name} holds for the whole optimizer. Set it there")
        if value is None and not any(spec.optional for spec in specs):
            raise ConfigError(f"{key}.{name}: got None. Type a value, or leave {name} out")


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, spec in info.hyperparameters.items() if spec.per_group]
