"""A user's Hydra app, as its own main function would see it: composed, searched and instantiated, or a ConfigError."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..core.errors import ConfigError, choices


@contextmanager
def composed(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The config of a job that is not run; `${hydra:...}` resolves inside the block, as it does in the job.

    Args:
        config_dir: the folder of the app's configs.
        config_name: the primary config, with or without `.yaml`.
        overrides: in Hydra's words.

    Raises:
        ConfigError: there is no such config, or Hydra cannot compose it.
    """
    _check_overrides(overrides)
    config = _composed(config_dir, config_name.removesuffix(".yaml"), overrides)
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python train.py` does: the config names the user's own modules
    running = HydraConfig.instance()
    before = running.cfg
    try:
        running.set_config(config)
        _set_output_dir(config)
        running.set_config(config)
        with open_dict(config):
            del config["hydra"]
        yield config
    finally:
        running.cfg = before


def nodes(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """`(key, node)` of each node with a `_target_`, each once, under the key that it is written at.

    What only an interpolation makes, such as a resolver's dict, stands under the interpolation's key.
    """
    seen = set[int]()
    later: list[tuple[str, Any, Any]] = []
    yield from _below(config, "", seen, later)
    while later:
        place, parent, key = later.pop(0)
        try:
            value = parent[key]
        except OmegaConfBaseException:
            continue  # whoever needs it is told so when it is made
        if id(value) not in seen:
            yield from _below(value, place, seen, later)


def is_node(config: DictConfig, key: str) -> bool:
    """Whether there is a node with a `_target_` at `key`.

    Raises:
        ConfigError: an interpolation on the way leads nowhere.
    """
    try:
        node = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise ConfigError(_of_config(error, key)) from error
    return isinstance(node, DictConfig) and "_target_" in node


def value_at(config: DictConfig, key: str) -> Any:
    """What stands at `key`; None where nothing does.

    Raises:
        ConfigError: an interpolation leads nowhere, or the value is missing.
    """
    try:
        return OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_of_config(error, key)) from error


def made(config: DictConfig, key: str) -> Any:
    """What the node at `key` makes.

    Raises:
        ConfigError: it leads nowhere, or making it failed; what the user's own code raised is quoted.
    """
    try:
        node = OmegaConf.select(config, key)
        _resolve(node, key)
        return instantiate(node)
    except InstantiationException as error:
        raise ConfigError(_of_making(error, key)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_of_config(error, error.full_key or key)) from error


def _check_overrides(overrides: Sequence[str]) -> None:
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(override)
        except HydraException as error:
            said = str(error).splitlines()[0]
            raise ConfigError(
                f"{override}: this is no override of Hydra's: {said}. Type KEY=VALUE, +KEY=VALUE or ~KEY, the whole in "
                "single quotes where there are brackets, spaces or a $ in it"
            ) from error


def _composed(config_dir: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir: there is no folder {config_dir}")
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            return compose(config_name, overrides=list(overrides), return_hydra_config=True)
    except MissingConfigException as error:
        if error.options:
            option = str(error.missing_cfg_file).rpartition("/")[2]
            raise ConfigError(f"{str(error).splitlines()[0]}.{choices(option, error.options)}") from error
        if error.missing_cfg_file != config_name:
            raise ConfigError(str(error)) from error
        known = sorted(path.stem for path in config_dir.glob("*.yaml"))
        raise ConfigError(
            f"--config-name: there is no {config_name}.yaml in {config_dir}.{choices(config_name, known)}"
        ) from error
    except (HydraException, yaml.YAMLError) as error:
        raise ConfigError(str(error).strip()) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_of_config(error, error.full_key or config_name)) from error
    except ValueError as error:  # of `scheduler=null`, where scheduler is a config group
        raise ConfigError(f"{error}. To leave a config group out, type ~GROUP") from error


def _set_output_dir(config: DictConfig) -> None:
    """Say where the job would write, as Hydra does before it runs one; nothing is made there."""
    try:
        run_dir = Path(str(config.hydra.run.dir)).absolute()
    except OmegaConfBaseException:
        return  # whoever needs it is told so when it is made
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(run_dir)


def _below(value: Any, place: str, seen: set[int], later: list[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, (DictConfig, ListConfig)):
        return
    seen.add(id(value))
    if isinstance(value, DictConfig) and "_target_" in value:
        yield place, value
    keys: Sequence[Any] = range(len(value)) if isinstance(value, ListConfig) else list(value)
    for key in keys:
        if OmegaConf.is_missing(value, key):
            continue
        below = f"{place}.{key}" if place else str(key)
        if OmegaConf.is_interpolation(value, key):
            later.append((below, value, key))
        else:
            yield from _below(value[key], below, seen, later)


def _resolve(value: Any, place: str) -> None:
    """Look at each value below: of one that cannot be had Hydra names the node only, and this its key.

    Raises:
        ConfigError: an interpolation leads nowhere, or a value is missing.
    """
    if not isinstance(value, (DictConfig, ListConfig)):
        return
    for key in range(len(value)) if isinstance(value, ListConfig) else list(value):
        below = f"{place}.{key}"
        try:
            item = value[key]
        except OmegaConfBaseException as error:
            raise ConfigError(_of_config(error, below)) from error
        if not OmegaConf.is_interpolation(value, key):
            _resolve(item, below)


def _of_making(error: InstantiationException, key: str) -> str:
    """What went wrong when a node was made: Hydra says where, its causes say what."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    found = re.search(r"full_key: (\S+)", str(error))
    where = found[1] if found else key
    target = re.search(r"Error locating target '([^']+)'", str(error))
    for cause in causes[1:]:
        if isinstance(cause, ConfigError):
            return f"{where}: {cause}"
    said = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    if target:
        return (
            f"{where}._target_: cannot import {target[1]}: {said}. Run this from the folder that your script runs in, "
            "or with PYTHONPATH=FOLDER before it"
        )
    if len(causes) > 1:
        said = f"{type(causes[-1]).__name__}: {said}"
    return f"{where}: {said.replace(f' full_key: {where}', '')}"


def _of_config(error: OmegaConfBaseException, where: str) -> str:
    """What OmegaConf could not give, and what to type for it to."""
    said = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{where}: it has no value (???). Type {where}=VALUE"
    if unset := re.search(r"Environment variable '([^']+)' not found", said):
        return f"{where}: the environment variable {unset[1]} is not set. Type {unset[1]}=VALUE before the command"
    if absent := re.search(r"Interpolation key '([^']+)' not found", said):
        return f"{where}: it refers to ${{{absent[1]}}}, and there is no such key. Type +{absent[1]}=VALUE"
    if unknown := re.search(r"Unsupported interpolation type (\S+)", said):
        return (
            f"{where}: there is no resolver {unknown[1]} here, where your script does not run to register it. "
            f"Type {where}=VALUE"
        )
    return f"{where}: {said}"
