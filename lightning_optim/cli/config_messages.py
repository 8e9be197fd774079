"""What Hydra and OmegaConf could not do with a config, in one line: the key, the reason, and what to type."""

from __future__ import annotations

import re

from hydra.errors import InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..core.errors import ConfigError


def describe_config_error(error: OmegaConfBaseException, key: str) -> str:
    """Why the value at a key could not be read."""
    reason = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: it has no value (???). Type {key}=VALUE"
    if match := re.search(r"Environment variable '([^']+)' not found", reason):
        return f"{key}: the environment variable {match[1]} is not set. Type {match[1]}=VALUE before the command"
    if match := re.search(r"Interpolation key '([^']+)' not found", reason):
        return f"{key}: it refers to ${{{match[1]}}}, and there is no such key. Type +{match[1]}=VALUE"
    if match := re.search(r"Unsupported interpolation type (\S+)", reason):
        return f"{key}: the resolver {match[1]} is not registered here, as your script does not run. Type {key}=VALUE"
    return f"{key}: {reason}"


def describe_instantiation_error(error: InstantiationException, key: str) -> str:
    """Why a node could not be instantiated: Hydra's error has its key, the causes have the reason."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    full_key = re.search(r"full_key: (\S+)", str(error))
    key = full_key[1] if full_key else key
    for cause in causes[1:]:
        if isinstance(cause, ConfigError):
            return f"{key}: {cause}"
    reason = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    if target := re.search(r"Error locating target '([^']+)'", str(error)):
        return (
            f"{key}._target_: cannot import {target[1]}: {reason}. Run this in the folder that your script runs in, or "
            "type PYTHONPATH=FOLDER before the command"
        )
    if len(causes) > 1:
        reason = f"{type(causes[-1]).__name__}: {reason}"
    return f"{key}: {reason.replace(f' full_key: {key}', '')}"
