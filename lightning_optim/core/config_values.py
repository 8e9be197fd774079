"""Config values: written as YAML for messages, and converted to plain Python types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ConfigError


def to_yaml(value: Any) -> str:
    """A value as one writes it in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(to_yaml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {to_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        # YAML 1.1 reads a float without a point (1e-08) as text; OmegaConf does not, others do.
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return str(value)


def to_plain(value: Any, key: str = "") -> Any:
    """A config value as str, number, bool, list or dict: OmegaConf's, numpy's, tuples and mappings are converted.

    Args:
        value: of a config.
        key: where it stands, for errors.

    Raises:
        ConfigError: a value in it is missing (`???`), or an interpolation leads nowhere.
    """
    if type(value).__module__.startswith("omegaconf"):
        return _from_omegaconf(value, key)
    if type(value).__module__ == "numpy":
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): to_plain(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{key}[{place}]") for place, item in enumerate(value)]
    return value


def _from_omegaconf(value: Any, key: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        # OmegaConf counts from the root of the app's config.
        below = str(error.full_key).removeprefix(value._get_full_key(None) or "").removeprefix(".")
        where = f"{key}{'' if below.startswith('[') or not key else '.'}{below}"
        raise ConfigError(f"{where}: {first_line}. Give it a value") from None
