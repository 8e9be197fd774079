"""`read_factory`: a factory as a caller passes it: the object, or what LightningCLI stores of it in `self.hparams`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..core.errors import ConfigError, format_choices
from ..schedule.factory import SchedulerFactory
from .factory import OptimizerFactory

FactoryT = TypeVar("FactoryT", OptimizerFactory, SchedulerFactory)

# The keys of a class in a config of LightningCLI.
_CLI_KEYS = ("class_path", "init_args", "dict_kwargs")


def read_factory(key: str, given: Any, cls: type[FactoryT]) -> FactoryT:
    """The factory that was passed for a key of the config.

    Args:
        key: of the node.
        given: the factory; or LightningCLI's mapping of it, with `class_path`, `init_args` and `dict_kwargs`, which
            `self.save_hyperparameters()` stores in place of the object.
        cls: `OptimizerFactory` or `SchedulerFactory`.

    Raises:
        ConfigError: it is another mapping, a `functools.partial` or something else.
    """
    if isinstance(given, cls):
        return given
    if isinstance(given, Mapping) and "class_path" in given:
        return _from_cli(key, given, cls)
    if getattr(given, "func", None) is cls:
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type _partial_: false")
    if isinstance(given, Mapping):
        hint = "instantiate it first: hydra.utils.instantiate(cfg)"
    else:
        hint = f"type _target_: lightning_optim.{cls.__name__} in the config"
    raise ConfigError(f"{key}: got a {type(given).__name__}, not a {cls.__name__}; {hint}")


def _from_cli(key: str, given: Mapping[str, Any], cls: type[FactoryT]) -> FactoryT:
    # Compared, never imported: a config must not choose what is imported.
    if given["class_path"] != f"lightning_optim.{cls.__name__}":
        raise ConfigError(
            f"{key}.class_path: got {given['class_path']}. Type class_path: lightning_optim.{cls.__name__}, or pass "
            "the object instead of self.hparams"
        )
    for name in given:
        if name not in _CLI_KEYS:
            raise ConfigError(f"{key}.{name}: no such key beside class_path.{format_choices(name, _CLI_KEYS)}")
    return cls(**given.get("init_args", {}), **given.get("dict_kwargs", {}))
