"""The nodes of a composed config: finding, reading and instantiating them, with a ConfigError for what fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..core.errors import ConfigError
from .config_messages import describe_config_error, describe_instantiation_error


def find_nodes(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """`(key, node)` of each node with a `_target_`, each once, under the key where it is written.

    A node that only an interpolation creates, such as a resolver's dict, has the key of the interpolation.
    """
    seen = set[int]()
    interpolations: list[tuple[str, Any, Any]] = []
    yield from _walk(config, "", seen, interpolations)
    while interpolations:
        path, parent, key = interpolations.pop(0)
        try:
            value = parent[key]
        except OmegaConfBaseException:
            continue  # a node that needs it raises when it is instantiated
        if id(value) not in seen:
            yield from _walk(value, path, seen, interpolations)


def _walk(
    value: Any, path: str, seen: set[int], interpolations: list[tuple[str, Any, Any]]
) -> Iterator[tuple[str, DictConfig]]:
    """The nodes at and below a path; interpolations on the way are appended to the list."""
    if not isinstance(value, (DictConfig, ListConfig)):
        return
    seen.add(id(value))
    if isinstance(value, DictConfig) and "_target_" in value:
        yield path, value
    for key in container_keys(value):
        if OmegaConf.is_missing(value, key):
            continue
        child_path = join_keys(path, key)
        if OmegaConf.is_interpolation(value, key):
            interpolations.append((child_path, value, key))
        else:
            yield from _walk(value[key], child_path, seen, interpolations)


def is_node(config: DictConfig, key: str) -> bool:
    """Whether there is a node with a `_target_` at `key`.

    Raises:
        ConfigError: an interpolation in `key` cannot be resolved.
    """
    try:
        node = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error, key)) from error
    return isinstance(node, DictConfig) and "_target_" in node


def get_value(config: DictConfig, key: str) -> Any:
    """The value at `key`; None where there is none.

    Raises:
        ConfigError: an interpolation cannot be resolved, or the value is missing (`???`).
    """
    try:
        return OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error, key)) from error


def instantiate_node(config: DictConfig, key: str) -> Any:
    """The object that the node at `key` describes.

    Raises:
        ConfigError: a value below cannot be resolved, or the user's code raised an error, which is quoted.
    """
    try:
        node = OmegaConf.select(config, key)
        check_resolvable(node, key)
        return instantiate(node)
    except InstantiationException as error:
        raise ConfigError(describe_instantiation_error(error, key)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error, error.full_key or key)) from error


def container_keys(container: DictConfig | ListConfig) -> Sequence[Any]:
    """The keys of a dict, or the indices of a list."""
    return range(len(container)) if isinstance(container, ListConfig) else list(container)


def join_keys(path: str, key: object) -> str:
    """`path.key`, or `key` at the top level."""
    return f"{path}.{key}" if path else str(key)


def check_resolvable(value: Any, path: str) -> None:
    """Resolve each value below a path: where one fails, Hydra's error has the key of the node, and this its own.

    Raises:
        ConfigError: an interpolation cannot be resolved, or a value is missing (`???`).
    """
    if not isinstance(value, (DictConfig, ListConfig)):
        return
    for key in container_keys(value):
        child_path = f"{path}.{key}"
        try:
            child = value[key]
        except OmegaConfBaseException as error:
            raise ConfigError(describe_config_error(error, child_path)) from error
        if not OmegaConf.is_interpolation(value, key):
            check_resolvable(child, child_path)
