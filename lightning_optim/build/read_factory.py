"""`read_factory`: a factory as a caller passes it: the object, or what LightningCLI stores of it in `self.hparams`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..core.config_values import to_plain
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
    given = {to_plain(name, key): value for name, value in given.items()}
    if given["class_path"] != f"lightning_optim.{cls.__name__}":
        raise ConfigError(
            f"{key}.class_path: got {to_plain(given['class_path'], key)}. Type class_path: "
            f"lightning_optim.{cls.__name__}, or pass the object instead of self.hparams"
        )
    for name in given:
        if name not in _CLI_KEYS:
            raise ConfigError(f"{key}.{name}: no such key beside class_path.{format_choices(str(name), _CLI_KEYS)}")
    arguments: dict[str, Any] = {}
    for part in ("init_args", "dict_kwargs"):
        values = to_plain(given[part], f"{key}.{part}") if given.get(part) is not None else {}
        if not isinstance(values, Mapping):
            raise ConfigError(f"{key}.{part}: got {values!r}, which is not a mapping. Type {part}: {{name: adamw}}")
        if twice := arguments.keys() & values.keys():
            raise ConfigError(f"{key}.{part}.{min(twice)}: it is in init_args too. Remove one of them")
        arguments |= values
    return cls(**arguments)
