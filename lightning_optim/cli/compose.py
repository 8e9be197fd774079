"""The config of a user's Hydra app, composed as for its main function."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from ..core.errors import ConfigError, format_choices
from .config_messages import describe_config_error


@contextmanager
def compose_config(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The config of a job that is not run; `${hydra:...}` resolves inside the block, as it does in the job.

    Args:
        config_dir: the folder of the app's configs.
        config_name: the primary config, with or without `.yaml`.
        overrides: as on the command line of the app.

    Raises:
        ConfigError: there is no such config, or Hydra cannot compose it.
    """
    _check_overrides(overrides)
    config = _compose(config_dir, config_name.removesuffix(".yaml"), overrides)
    if "" not in sys.path:
        sys.path.insert(0, "")  # as in `python train.py`: the config names the user's own modules
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    try:
        hydra_config.set_config(config)
        _set_output_dir(config)
        hydra_config.set_config(config)
        with open_dict(config):
            del config["hydra"]
        yield config
    finally:
        hydra_config.cfg = before


def _check_overrides(overrides: Sequence[str]) -> None:
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(override)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{override}: this is not a valid Hydra override: {reason}. Type KEY=VALUE, +KEY=VALUE or ~KEY, all of "
                "it in single quotes if it has brackets, spaces or a $"
            ) from error


def _compose(config_dir: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir: there is no folder {config_dir}")
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            return compose(config_name, overrides=list(overrides), return_hydra_config=True)
    except MissingConfigException as error:
        if error.options:
            option = str(error.missing_cfg_file).rpartition("/")[2]
            raise ConfigError(f"{str(error).splitlines()[0]}.{format_choices(option, error.options)}") from error
        if error.missing_cfg_file != config_name:
            raise ConfigError(str(error)) from error
        known = sorted(path.stem for path in config_dir.glob("*.yaml"))
        raise ConfigError(
            f"--config-name: there is no {config_name}.yaml in {config_dir}.{format_choices(config_name, known)}"
        ) from error
    except (HydraException, yaml.YAMLError) as error:
        raise ConfigError(str(error).strip()) from error
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error, error.full_key or config_name)) from error
    except ValueError as error:  # from `scheduler=null`, where scheduler is a config group
        raise ConfigError(f"{error}. To leave a config group out, type ~GROUP") from error


def _set_output_dir(config: DictConfig) -> None:
    """Set the job's output folder, as Hydra does before it runs a job; the folder is not created."""
    try:
        run_dir = Path(str(config.hydra.run.dir)).absolute()
    except OmegaConfBaseException:
        return  # a node that needs it raises when it is instantiated
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(run_dir)
