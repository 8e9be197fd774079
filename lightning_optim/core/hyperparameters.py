"""What values a hyperparameter accepts: its type, default and bounds, and the check of a given value (no torch)."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .config_values import to_plain, to_yaml
from .errors import ConfigError, did_you_mean, format_choices
from .text_values import explain_text, read_text
from .version import is_torch_at_least, read_torch_version

_INVALID = object()
_MAX_INTEGER = 2**63 - 1
"""The largest that a tensor holds; a float between two steps of a schedule could not be told from a larger one."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(ABC):
    """A hyperparameter of an optimizer or a schedule; each subclass accepts one type of value."""

    REQUIRED: ClassVar[object] = object()
    takes_text: ClassVar[bool] = False
    """Whether a string is a value, and so not a number or a flag in quotes."""

    default: Any = REQUIRED
    """The value used where the config gives none; `REQUIRED` where it must give one."""
    optional: bool = False
    """Whether `null` is allowed."""
    per_group: bool = True
    """Whether param groups may have different values."""
    since: str = ""
    """The version of torch whose class takes it first, such as 2.14; '' where every supported version does."""
    help: str = ""
    """One line for `lightning-optim show`, YAML comments and docstrings."""

    @property
    def required(self) -> bool:
        """Whether the config must give a value."""
        return self.default is Hyperparameter.REQUIRED

    def check(self, value: Any, key: str) -> Any:
        """The value, converted to the type that the algorithm uses.

        Args:
            value: a config value; numbers of numpy and the like are numbers.
            key: its config key; the error message starts with it.

        Raises:
            ConfigError: the value has another type, is out of bounds, or the installed torch does not have it.
        """
        value = to_plain(value, key)
        if value is None and self.optional:
            return None
        converted = self._convert(value)
        if converted is _INVALID:
            raise ConfigError(self._explain(value, key))
        if (version := self._find_version(converted)) and not is_torch_at_least(version):
            raise ConfigError(
                f"{key}: {to_yaml(value)} needs torch >= {version}, and torch {read_torch_version()} is installed. "
                f"Upgrade torch, or type {key.rsplit('.', 1)[-1]}: {to_yaml(self.default)}"
            )
        return converted

    def describe(self) -> str:
        """The allowed values in words, e.g. 'a finite number >= 0 or null'."""
        return self._describe() + (" or null" if self.optional else "")

    @property
    def is_available(self) -> bool:
        """Whether the installed torch takes it; where not, only its default is allowed."""
        return not self.since or is_torch_at_least(self.since)

    def _find_version(self, converted: Any) -> str:
        """The version of torch that the value needs; '' for any."""
        return self.since if converted != self.default else ""

    def _explain(self, value: Any, key: str) -> str:
        """Why the value is refused, and what to type."""
        is_tensor = (
            getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not getattr(value, "is_meta", False)
        )
        if is_tensor and self._convert(value.item()) is not _INVALID:
            return f"{key}: got {value!r}, a tensor, not {self.describe()}. Type its number: value.item()"
        meant = read_text(value)
        is_allowed = (meant is None and self.optional) or self._convert(meant) is not _INVALID
        is_spelled_out = repr(meant) != repr(value) and (is_allowed or not self.takes_text)
        advice = f" {explain_text(value, meant, key)}" if is_spelled_out and is_allowed else self._advice(value, key)
        return f"{key}: got {value!r}, which is {'text, ' if is_spelled_out else ''}not {self.describe()}.{advice}"

    def _advice(self, value: Any, key: str) -> str:
        """What to type instead, with a leading space."""
        if self.required or self.default is None:
            return ""
        return f" Type for example {key.rsplit('.', 1)[-1]}: {to_yaml(self.default)}"

    @abstractmethod
    def _convert(self, value: Any) -> Any:
        """The value in the type that the algorithm uses, or `_INVALID`."""

    @abstractmethod
    def _describe(self) -> str:
        """The allowed values other than null."""


@dataclass(frozen=True, kw_only=True)
class Number(Hyperparameter):
    """A finite number, or an integer; a bound that is `open` is itself excluded."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    integer: bool = False

    def _convert(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            return _INVALID
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return _INVALID
        if self.high is not None and (value > self.high or (self.open_high and value == self.high)):
            return _INVALID
        if self.integer:
            return int(value) if int(value) == value and abs(value) <= _MAX_INTEGER else _INVALID
        return float(value)

    def _advice(self, value: Any, key: str) -> str:
        if self.integer and isinstance(value, (int, float)) and _MAX_INTEGER < value < math.inf:
            return f" Type at most {_MAX_INTEGER}"
        return super()._advice(value, key)

    def _describe(self) -> str:
        bounds = []
        if self.low is not None:
            bounds.append(f"{'>' if self.open_low else '>='} {self.low:g}")
        if self.high is not None:
            bounds.append(f"{'<' if self.open_high else '<='} {self.high:g}")
        return " ".join(["an integer" if self.integer else "a finite number", " and ".join(bounds)]).strip()


@dataclass(frozen=True, kw_only=True)
class Flag(Hyperparameter):
    """True or false."""

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, bool) else _INVALID

    def _describe(self) -> str:
        return "true or false"


@dataclass(frozen=True, kw_only=True)
class Choice(Hyperparameter):
    """One of a few strings."""

    takes_text = True
    options: tuple[str, ...]
    options_since: Mapping[str, str] = field(default_factory=dict)
    """By option: the version of torch that has it first; options without one are in every supported version."""

    @property
    def available_options(self) -> tuple[str, ...]:
        """Those that the installed torch has."""
        since = self.options_since
        return tuple(option for option in self.options if option not in since or is_torch_at_least(since[option]))

    def _find_version(self, converted: Any) -> str:
        return self.options_since.get(converted, super()._find_version(converted))

    def _advice(self, value: Any, key: str) -> str:
        return did_you_mean(str(value), self.options) or super()._advice(value, key)

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, str) and value in self.options else _INVALID

    def _describe(self) -> str:
        return f"one of {', '.join(self.available_options)}"


@dataclass(frozen=True, kw_only=True)
class Text(Hyperparameter):
    """Any non-empty string."""

    takes_text = True

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, str) and value else _INVALID

    def _describe(self) -> str:
        return "a non-empty string"


@dataclass(frozen=True, kw_only=True)
class Numbers(Hyperparameter):
    """A list of numbers, one for each of `items`; converted to a tuple."""

    items: tuple[Number, ...]

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(self.items):
            return _INVALID
        converted = tuple(
            None if item.optional and given is None else item._convert(given)
            for item, given in zip(self.items, value, strict=True)
        )
        return _INVALID if any(number is _INVALID for number in converted) else converted

    def _describe(self) -> str:
        return f"a list of {len(self.items)}: {'; '.join(item.describe() for item in self.items)}"


_POSITIVE = Number(default=1, low=1, integer=True)


@dataclass(frozen=True, kw_only=True)
class IncreasingIntegers(Hyperparameter):
    """A strictly increasing list of positive integers, of any length but zero."""

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not value:
            return _INVALID
        integers = [_POSITIVE._convert(item) for item in value]
        if any(item is _INVALID for item in integers):
            return _INVALID
        return integers if sorted(set(integers)) == integers else _INVALID

    def _describe(self) -> str:
        return "an increasing list of positive integers"


@dataclass(frozen=True, kw_only=True)
class Parts(Number):
    """A number of equal parts, or the size of each part as a list, which is converted to a tuple."""

    low: float | None = 1
    integer: bool = True

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return super()._convert(value)
        sizes = tuple([_POSITIVE._convert(size) for size in value])
        return _INVALID if not sizes or _INVALID in sizes else sizes

    def _describe(self) -> str:
        return f"{super()._describe()}, or a list of positive integers"


@dataclass(frozen=True, kw_only=True)
class Fields(Hyperparameter):
    """A mapping with a fixed set of keys; keys that are not given get their default."""

    items: Mapping[str, Hyperparameter]

    def check(self, value: Any, key: str) -> Any:
        """The mapping with all keys, each value checked.

        Raises:
            ConfigError: it is not a mapping, a key is unknown, or a value is not allowed.
        """
        value = to_plain(value, key)
        if isinstance(value, Mapping):
            for name in value:
                if name not in self.items:
                    raise ConfigError(
                        f"{key}.{name}: {key} has no key {name!r}.{format_choices(str(name), self.items)}"
                    )
            return {
                name: spec.check(value[name], f"{key}.{name}") if name in value else spec.default
                for name, spec in self.items.items()
            }
        return super().check(value, key)

    def _advice(self, value: Any, key: str) -> str:
        return f" Type for example {key.rsplit('.', 1)[-1]}: {to_yaml({n: s.default for n, s in self.items.items()})}"

    def _convert(self, value: Any) -> Any:
        return _INVALID

    def _describe(self) -> str:
        return f"a mapping of {' and '.join(f'{name} ({spec.describe()})' for name, spec in self.items.items())}"


@dataclass(frozen=True, kw_only=True)
class SameTypeAsDefault(Hyperparameter):
    """Any value of the default's type, passed on unchanged; anything where the default is null.

    For optimizers of which only the signature is known.
    """

    def _convert(self, value: Any) -> Any:
        if self.required or self.default is None:
            return value
        if isinstance(self.default, bool) or isinstance(value, bool):
            return value if isinstance(value, bool) and isinstance(self.default, bool) else _INVALID
        if isinstance(self.default, (int, float)):
            return value if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max else _INVALID
        if isinstance(self.default, (list, tuple)):
            same_length = isinstance(value, (list, tuple)) and len(value) == len(self.default)
            return type(self.default)(value) if same_length else _INVALID
        return value if isinstance(value, type(self.default)) else _INVALID

    def _describe(self) -> str:
        if self.required or self.default is None:
            return "anything"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, (int, float)):
            return "a finite number"
        if isinstance(self.default, (list, tuple)):
            return f"a list of {len(self.default)}"
        return f"a {type(self.default).__name__}"
