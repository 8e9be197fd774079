"""What values a hyperparameter takes: its default, its bounds, and the check of one given value (no torch)."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .config_values import to_yaml
from .errors import ConfigError, choices, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(ABC):
    """One hyperparameter of an algorithm or a schedule; the subclasses say what values it takes."""

    REQUIRED: ClassVar[object] = object()

    default: Any = REQUIRED
    """The value where the config says nothing; `REQUIRED` where it must."""
    optional: bool = False
    """Whether `null` is a value."""
    per_group: bool = True
    """Whether each param group may have its own."""
    help: str = ""
    """One line for `lightning-optim show`."""

    @property
    def required(self) -> bool:
        """Whether the config must give it."""
        return self.default is Hyperparameter.REQUIRED

    def check(self, value: Any, key: str) -> Any:
        """The value as the algorithm takes it.

        Raises:
            ConfigError: it is of another type or out of bounds; the message begins with `key`.
        """
        if value is None and self.optional:
            return None
        checked = self._convert(value)
        if checked is _WRONG:
            raise ConfigError(f"{key}: got {value!r}, which is not {self.describe()}.{self._advice(value, key)}")
        return checked

    def describe(self) -> str:
        """The allowed values in words, e.g. 'a number >= 0'."""
        return self._describe() + (" or null" if self.optional else "")

    def _advice(self, value: Any, key: str) -> str:
        if self.required or self.default is None:
            return ""
        return f" Type for example {key.rsplit('.', 1)[-1]}: {to_yaml(self.default)}"

    @abstractmethod
    def _convert(self, value: Any) -> Any:
        """The value as the algorithm takes it, or `_WRONG`."""

    @abstractmethod
    def _describe(self) -> str:
        """What it takes, in words."""


_WRONG = object()


@dataclass(frozen=True, kw_only=True)
class Number(Hyperparameter):
    """A finite number; an `open` bound is itself excluded."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    integer: bool = False

    def _convert(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            return _WRONG
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return _WRONG
        if self.high is not None and (value > self.high or (self.open_high and value == self.high)):
            return _WRONG
        if self.integer:
            return int(value) if int(value) == value else _WRONG
        return float(value)

    def _describe(self) -> str:
        bounds = []
        if self.low is not None:
            bounds.append(f"{'>' if self.open_low else '>='} {self.low:g}")
        if self.high is not None:
            bounds.append(f"{'<' if self.open_high else '<='} {self.high:g}")
        return " ".join([f"{'a whole' if self.integer else 'a finite'} number", " and ".join(bounds)]).strip()


@dataclass(frozen=True, kw_only=True)
class Flag(Hyperparameter):
    """true or false."""

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, bool) else _WRONG

    def _describe(self) -> str:
        return "true or false"


@dataclass(frozen=True, kw_only=True)
class Choice(Hyperparameter):
    """One of a few words."""

    options: tuple[str, ...]

    def _advice(self, value: Any, key: str) -> str:
        return did_you_mean(str(value), self.options) or super()._advice(value, key)

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, str) and value in self.options else _WRONG

    def _describe(self) -> str:
        return f"one of {', '.join(self.options)}"


@dataclass(frozen=True, kw_only=True)
class Text(Hyperparameter):
    """Any non-empty text."""

    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, str) and value else _WRONG

    def _describe(self) -> str:
        return "a text"


@dataclass(frozen=True, kw_only=True)
class Numbers(Hyperparameter):
    """A list of as many numbers as there are `items`; a tuple once checked."""

    items: tuple[Number, ...]

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(self.items):
            return _WRONG
        converted = tuple(
            None if item.optional and given is None else item._convert(given)
            for item, given in zip(self.items, value, strict=True)
        )
        return _WRONG if any(given is _WRONG for given in converted) else converted

    def _describe(self) -> str:
        return f"a list of {len(self.items)}: {'; '.join(item.describe() for item in self.items)}"


@dataclass(frozen=True, kw_only=True)
class IncreasingIntegers(Hyperparameter):
    """A growing list of positive whole numbers, of any length."""

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not value:
            return _WRONG
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value):
            return _WRONG
        return list(value) if sorted(set(value)) == list(value) else _WRONG

    def _describe(self) -> str:
        return "a growing list of positive whole numbers"


@dataclass(frozen=True, kw_only=True)
class Fields(Hyperparameter):
    """A mapping of a few keys, each with a default; all of them once checked."""

    items: Mapping[str, Hyperparameter]

    def check(self, value: Any, key: str) -> Any:
        """The mapping, with the defaults of what it does not have."""
        if isinstance(value, Mapping):
            for name in value:
                if name not in self.items:
                    raise ConfigError(f"{key}.{name}: there is no {name!r} in it.{choices(str(name), self.items)}")
            return {
                name: spec.check(value[name], f"{key}.{name}") if name in value else spec.default
                for name, spec in self.items.items()
            }
        return super().check(value, key)

    def _advice(self, value: Any, key: str) -> str:
        return f" Type for example {key.rsplit('.', 1)[-1]}: {to_yaml({n: s.default for n, s in self.items.items()})}"

    def _convert(self, value: Any) -> Any:
        return _WRONG

    def _describe(self) -> str:
        return f"a mapping of {' and '.join(f'{name} ({spec.describe()})' for name, spec in self.items.items())}"


@dataclass(frozen=True, kw_only=True)
class SameTypeAsDefault(Hyperparameter):
    """What is of the default's kind, passed on as it is; anything where the default is null.

    For optimizers of which nothing but the signature is known.
    """

    def _convert(self, value: Any) -> Any:
        if self.required or self.default is None:
            return value
        if isinstance(self.default, bool) or isinstance(value, bool):
            return value if isinstance(value, bool) and isinstance(self.default, bool) else _WRONG
        if isinstance(self.default, (int, float)):
            return value if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max else _WRONG
        if isinstance(self.default, (list, tuple)):
            alike = isinstance(value, (list, tuple)) and len(value) == len(self.default)
            return type(self.default)(value) if alike else _WRONG
        return value if isinstance(value, type(self.default)) else _WRONG

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
