"""Splits what a step is called with into what a kernel is made for and the numbers that may change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import MethodType, NoneType
from typing import Any, NamedTuple

from torch import dtype

Rule = Callable[[Any, Any, Sequence[Any]], None]
"""Called as `rule(p, g, buffers)`; a partial call, whose floats may change from step to step."""
_NUMBER = "number"
_CONSTANTS = (int, bool, str, NoneType, dtype)
"""Types of most constants, which need not be asked what else they are."""


class Call(NamedTuple):
    """What a step does with tensors: a rule with all its arguments but those."""

    rule: Rule
    constants: Hashable
    """What identifies the call apart from its numbers."""
    names: tuple[str, ...]
    values: tuple[float, ...]
    """Its numbers, which may change from step to step."""

    @classmethod
    def of(cls, rule: Rule) -> Call:
        """The call that a partial one stands for."""
        numbers: dict[str, float] = {}
        constants = split_numbers(rule, numbers)
        return cls(rule, constants, tuple(name.rsplit(".", 1)[-1] for name in numbers), tuple(numbers.values()))

    def with_numbers(self, numbers: Sequence[Any]) -> Rule:
        """The rule with others in place of its numbers."""
        rule: Rule = with_numbers(self.rule, iter(numbers))
        return rule


def split_numbers(value: Any, numbers: dict[str, float], name: str = "") -> Hashable:
    """What identifies a call apart from its floats, which are added to `numbers`.

    Args:
        value: a partial call of a function or of a method; or what is in one: mappings, tuples, dataclasses, constants.
        numbers: by a name that is unique in the call.
        name: of the value.
    """
    if isinstance(value, float):  # NumPy's too
        numbers[name] = float(value)
        return _NUMBER
    key: Hashable = value
    if type(value) in _CONSTANTS:
        return key
    if isinstance(value, Mapping):
        return tuple([(key, split_numbers(item, numbers, f"{name}.{key}")) for key, item in value.items()])
    if names := _field_names(type(value)):  # type: ignore[arg-type]  # mypy takes classes for unhashable
        return type(value), *[split_numbers(getattr(value, field), numbers, f"{name}.{field}") for field in names]
    if isinstance(value, partial):
        arguments = dict(enumerate(value.args)) | value.keywords
        return split_numbers(value.func, numbers), split_numbers(arguments, numbers, name)
    if isinstance(value, MethodType):
        return value.__func__, type(value.__self__)
    if isinstance(value, tuple | list):
        return tuple([split_numbers(item, numbers, f"{name}.{i}") for i, item in enumerate(value)])
    return key


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    """Of a dataclass; of any other class none."""
    return tuple([field.name for field in fields(cls)]) if is_dataclass(cls) else ()


def with_numbers(value: Any, numbers: Iterator[Any]) -> Any:
    """The same call with these in place of its floats, in the order of `split_numbers`."""
    if isinstance(value, float):
        return next(numbers)
    if isinstance(value, Mapping):
        return {key: with_numbers(item, numbers) for key, item in value.items()}
    if is_dataclass(value):
        copy = object.__new__(type(value))  # the constructor may check numbers
        for f in fields(value):
            object.__setattr__(copy, f.name, with_numbers(getattr(value, f.name), numbers))
        return copy
    if isinstance(value, partial):
        arguments = with_numbers(dict(enumerate(value.args)) | value.keywords, numbers)
        positional = [arguments.pop(i) for i in range(len(value.args))]
        return partial(value.func, *positional, **arguments)
    if isinstance(value, tuple | list):
        return tuple(with_numbers(item, numbers) for item in value)
    return value
