"""The check of the hyperparameters that a stage sets on the groups it thaws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..catalog.registry import algorithms_with, optimizer_info
from ..core.errors import ConfigError, format_choices, prefix_errors


def check_hyperparameters(
    given: Mapping[str, Any], key: str, stage_keys: Sequence[str], optimizer: str | None = None
) -> None:
    """Check that an optimizer has each of these hyperparameters, and that they can differ by param group.

    Args:
        given: the hyperparameters of a stage.
        key: of the stage in the config.
        stage_keys: the other keys of a stage, listed in the error.
        optimizer: which optimizer; None for any.

    Raises:
        ConfigError: there is no such optimizer; or a hyperparameter is unknown, holds for the whole optimizer, or is
            null where that is no value.
    """
    infos = list(BUILT_IN.values())
    if optimizer is not None:
        with prefix_errors(f"{key}.optimizer"):
            infos = [optimizer_info(optimizer)]
    for name, value in given.items():
        algorithms = algorithms_with(name) if optimizer is None else [optimizer]
        found = (optimizer_info(algorithm).hyperparameters.get(name) for algorithm in algorithms)
        specs = [spec for spec in found if spec is not None]
        if not specs:
            known = dict.fromkeys((*stage_keys, *(name for info in infos for name in _per_group(info))))
            raise ConfigError(f"{key}.{name}: a stage has no key {name!r}.{format_choices(name, known)}")
        if not any(spec.per_group for spec in specs):
            raise ConfigError(f"{key}.{name}: {name} holds for the whole optimizer. Set it there")
        if value is None and not any(spec.optional for spec in specs):
            raise ConfigError(f"{key}.{name}: got None. Type a value, or leave {name} out")


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, spec in info.hyperparameters.items() if spec.per_group]
