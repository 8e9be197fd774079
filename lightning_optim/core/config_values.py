"""Config values: formatted as YAML for messages, and converted to plain Python types."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

_MAX_DEPTH = 50
_MAX_BITS = 14_000
"""Of an integer: Python prints none of more than 4300 digits, in no message either."""


def to_yaml(value: Any) -> str:
    """The value as it would be written in a YAML config."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(to_yaml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {to_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        # YAML 1.1 reads a float without a decimal point (1e-08) as a string; OmegaConf does not, other parsers do.
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return str(value)


def to_plain(value: Any, key: str = "", depth: int = 0) -> Any:
    """A copy of a config value made of str, number, bool, list and dict only.

    OmegaConf containers, numpy arrays, tuples and other mappings are converted; and so is every other kind of real
    number, such as a numpy integer or a fraction. A tensor stays one: it may be meant to change later.

    Args:
        value: the config value.
        key: its config key, for error messages.
        depth: in how many containers it is.

    Raises:
        ConfigError: a value in it is missing (`???`), an interpolation cannot be resolved, containers are in one
            another without an end, or an integer is larger than any number that a computer calculates with.
    """
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{key[:80]}...: more than {_MAX_DEPTH} mappings and lists in one another. Remove some")
    if type(value).__module__.startswith("omegaconf"):
        return _from_omegaconf(value, key)
    if isinstance(value, Mapping):
        keyed = [(str(to_plain(name, key)), item) for name, item in value.items()]
        return {name: to_plain(item, f"{key}.{name}" if key else name, depth + 1) for name, item in keyed}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{key}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        digits = int(value.bit_length() * 0.30103)
        raise ConfigError(f"{key or 'value'}: got an integer of {digits:,} digits. Type a number that fits a float")
    return _to_plain_scalar(value)


def _to_plain_scalar(value: Any) -> Any:
    if type(value) in (bool, int, float, str):
        return value
    if isinstance(value, numbers.Integral):  # numpy's integers too: numpy registers them
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):  # arrays, numpy.bool, numpy.str_
        return value.tolist()
    return value


def _from_omegaconf(value: Any, key: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        # OmegaConf reports the key from the root of the app's config; ours is relative to `value`.
        subkey = str(error.full_key).removeprefix(value._get_full_key(None) or "").removeprefix(".")
        full_key = f"{key}{'' if subkey.startswith('[') or not key else '.'}{subkey}"
        raise ConfigError(f"{full_key}: {first_line}. Give it a value") from None
    except RecursionError:
        raise ConfigError(f"{key or 'config'}: too many mappings and lists in one another. Remove some") from None
