"""The nodes of this package, read as data: nothing that they name is imported or called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..core.errors import ConfigError, prefix_errors
from .config_messages import describe_config_error
from .nodes import check_resolvable

FACTORY = "lightning_optim.OptimizerFactory"
SCHEDULER = "lightning_optim.SchedulerFactory"
UNFREEZE = "lightning_optim.StagedUnfreeze"
_OWN = (FACTORY, SCHEDULER, UNFREEZE)
_HYDRA_KEYS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")


class Uncalled:
    """Stands for a value that the app's own run computes by a `_target_`."""

    def __init__(self, target: object) -> None:
        self.__name__ = str(target)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Never done: it would run code that a config names."""
        raise ConfigError(f"{self!r} is called by your script only, not here")

    def __repr__(self) -> str:
        return f"_target_: {self.__name__}"


def read_own_node(config: DictConfig, key: str) -> Any:
    """The object of this package that the node at `key` describes; a `_target_` within it is not called.

    Args:
        config: the composed config.
        key: of a node whose `_target_` is `FACTORY`, `SCHEDULER` or `UNFREEZE`.

    Raises:
        ConfigError: a value cannot be resolved, or the class does not take it.
    """
    try:
        node = OmegaConf.select(config, key)
        check_resolvable(node, key)
        values: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error, error.full_key or key)) from error
    if values.get("_partial_"):
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type {key}._partial_=false")
    arguments = {name: _without_calls(value) for name, value in values.items() if name not in _HYDRA_KEYS}
    assert values["_target_"] in _OWN
    package, _, name = values["_target_"].rpartition(".")
    cls = getattr(import_module(package), name)  # Lightning is imported for stages only
    with prefix_errors(key):
        try:
            return cls(*_without_calls(values.get("_args_", [])), **arguments)
        except TypeError as error:  # an argument that it does not have
            raise ConfigError(f"{type(error).__name__}: {error}") from error


def _without_calls(value: Any) -> Any:
    """The value with an `Uncalled` in place of each node."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return Uncalled(value["_target_"])
        return {name: _without_calls(item) for name, item in value.items()}
    return [_without_calls(item) for item in value] if isinstance(value, list) else value
