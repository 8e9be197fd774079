"""Config values: formatted as YAML for messages, and converted to plain Python types."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError
from .printable import to_printable

_MAX_DEPTH = 50
_MAX_VALUES = 100_000
"""In one config: a few YAML anchors, each a list of those before it, stand for more than fit into memory."""
_MAX_BITS = 14_000
"""Of an integer: Python prints none of more than 4300 digits, in no message either."""
_PRINTED_AT_WILL = (bool, int, float, str, bytes, type(None))


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


def read_attributes(state: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The attributes that a pickle gives a factory: plain values, as its arguments are.

    Args:
        state: what the pickle has in place of the object's attributes.
        kinds: the attributes that it must have, with their types.

    Raises:
        ConfigError: one is missing or of another type, or a value is none that a config may have.
    """
    if not isinstance(state, Mapping):
        raise ConfigError(f"hyper_parameters: a factory in the file has a {type(state).__name__} for its attributes")
    try:
        plain: dict[str, Any] = {str(key): to_plain(value, str(key)) for key, value in state.items()}
    except ConfigError as error:
        raise ConfigError(to_printable(str(error))) from None
    for key, kind in kinds.items():
        if not isinstance(plain.get(key), kind):
            raise ConfigError(
                f"{key}: a factory in the file must have a {kind.__name__} here, got {type(plain.get(key)).__name__}"
            )
    return plain


def to_plain(value: Any, key: str = "") -> Any:
    """A copy of a config value made of str, number, bool, list and dict only.

    OmegaConf containers, numpy arrays, tuples and other mappings are converted; and so is every other kind of real
    number, such as a numpy integer or a fraction. A tensor stays one: it may be meant to change later; and so does any
    other object that can be printed: whoever reads the value refuses it by its key.

    Args:
        value: the config value.
        key: its config key, for error messages.

    Raises:
        ConfigError: a value in it is missing (`???`), an interpolation cannot be resolved, containers are in one
            another without an end, a key is there twice, an integer is larger than any number that a computer
            calculates with, or a value can be neither read nor printed.
    """
    return _Conversion().convert(value, key, 0)


class _Conversion:
    """The conversion of one config, which counts its values."""

    def __init__(self) -> None:
        self._num_values = 0

    def convert(self, value: Any, key: str, depth: int) -> Any:
        self._count(1, key)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{key[:80]}...: more than {_MAX_DEPTH} mappings and lists in one another. Remove some")
        if type(value).__module__.startswith("omegaconf"):
            value = _from_omegaconf(value, key)
        if isinstance(value, Mapping):
            return self._convert_mapping(value, key, depth)
        if isinstance(value, (list, tuple)):
            return [self.convert(item, f"{key}[{index}]", depth + 1) for index, item in enumerate(value)]
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):  # arrays, numpy.bool, numpy.str_
            self._count(value.size, key)
            if type(plain := value.tolist()) is not type(value):  # a numpy.longdouble stays one
                return self.convert(plain, key, depth + 1)
        return _to_plain_scalar(value, key)

    def _convert_mapping(self, value: Mapping[Any, Any], key: str, depth: int) -> dict[str, Any]:
        try:
            items = [(name, value[name]) for name in value]
        except Exception as error:
            raise ConfigError(
                f"{key or 'config'}: a {type(value).__name__} of which the values cannot be read: "
                f"{type(error).__name__}. Type a plain mapping"
            ) from None
        plain: dict[str, Any] = {}
        for given_name, item in items:
            name = str(self.convert(given_name, key, depth + 1))
            subkey = f"{key}.{name}" if key else name
            if name in plain:
                raise ConfigError(f"{subkey}: given twice, as {given_name!r} and as another key. Remove one of them")
            plain[name] = self.convert(item, subkey, depth + 1)
        return plain

    def _count(self, num_values: int, key: str) -> None:
        self._num_values += num_values
        if self._num_values > _MAX_VALUES:
            raise ConfigError(f"{key[:80]}: more than {_MAX_VALUES:,} values in one config. Remove some")


def _to_plain_scalar(value: Any, key: str) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        digits = int(value.bit_length() * 0.30103)
        raise ConfigError(f"{key or 'value'}: got an integer of {digits:,} digits. Type a number that fits a float")
    if type(value) in _PRINTED_AT_WILL:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    try:
        if isinstance(value, numbers.Integral):  # numpy's integers too: numpy registers them
            return int(value)
        if isinstance(value, numbers.Real):
            return float(value)
    except (OverflowError, TypeError, ValueError):
        raise ConfigError(
            f"{key or 'value'}: got a {type(value).__name__} that is no number of a computer. Type a number that "
            "fits a float"
        ) from None
    if not hasattr(value, "ndim"):  # to print a tensor would wait for its device
        _check_printable(value, key)
    return value


def _check_printable(value: Any, key: str) -> None:
    """Check that a message can show the value."""
    try:
        repr(value)
    except Exception as error:
        raise ConfigError(
            f"{key or 'value'}: got a {type(value).__name__} that cannot be printed: {type(error).__name__}. Type "
            "text, a number, true, false, null, a list or a mapping"
        ) from None


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
