"""The check of the hyperparameters that a stage sets on the groups it thaws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..catalog.registry import algorithms_with, optimizer_info
from ..core.errors import ConfigError, format_choices


def check_hyperparameters(given: Mapping[str, Any], key: str, stage_keys: Sequence[str]) -> None:
    """Check that some optimizer has each of these hyperparameters, and that they can differ by param group.

    Args:
        given: the hyperparameters of a stage.
        key: of the stage in the config.
        stage_keys: the other keys of a stage, listed in the error.

    Raises:
        ConfigError: a hyperparameter is unknown, holds for the whole optimizer, or is null where that is no value.
    """
    for name, value in given.items():
        specs = [optimizer_info(algorithm).hyperparameters[name] for algorithm in algorithms_with(name)]
        if not specs:
            known = dict.fromkeys((*stage_keys, *(name for info in BUILT_IN.values() for name in _per_group(info))))
            raise ConfigError(f"{key}.{name}: a stage has no key {name!r}.{format_choices(name, known)}")
        if not any(spec.per_group for spec in specs):
            raise ConfigError(f"{key}.{name}: {name} holds for the whole optimizer. Set it there")
        if value is None and not any(spec.optional for spec in specs):
            raise ConfigError(f"{key}.{name}: got None. Type a value, or leave {name} out")


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, spec in info.hyperparameters.items() if spec.per_group]
