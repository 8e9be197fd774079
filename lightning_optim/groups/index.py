"""A model's parameters, indexed for what selectors ask: ten thousand names meet fifty rules before training starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from torch import nn

from .kinds import kinds_of
from .names import Parameter, Use


class Index:
    """Every use of every parameter, by its place; a tied parameter has several.

    Args:
        parameters: what `read_parameters` gave.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        self.uses: list[Use] = [use for parameter in parameters for use in parameter.uses]
        self.holders: list[int] = [place for place, parameter in enumerate(parameters) for _ in parameter.uses]
        """The place in `parameters` of each use's."""
        self.names: list[str] = [use.name for use in self.uses]
        self.roles: dict[int, str] = {place: use.role for place, use in enumerate(self.uses) if use.role != use.name}
        """Those of parametrized tensors, which also go by the name of what they make."""

    @cached_property
    def by_kind(self) -> dict[str, set[int]]:
        """The uses of each kind."""
        found: dict[str, set[int]] = {}
        for place, use in enumerate(self.uses):
            for kind in kinds_of(use.role, self.parameters[self.holders[place]].tensor.ndim, use.owner):
                found.setdefault(kind, set()).add(place)
        return found

    @cached_property
    def by_class(self) -> dict[type[nn.Module], set[int]]:
        """The uses by modules of each class."""
        found: dict[type[nn.Module], set[int]] = {}
        for place, use in enumerate(self.uses):
            if use.owner is not None:
                found.setdefault(type(use.owner), set()).add(place)
        return found

    def kinds(self, wanted: Iterable[str]) -> set[int]:
        """The uses of any of these kinds."""
        return set().union(*(self.by_kind.get(kind, ()) for kind in wanted))

    def classes(self, wanted: Sequence[str]) -> set[int]:
        """The uses by modules of any of these classes, by name or dotted name; subclasses count."""
        of_them = (places for cls, places in self.by_class.items() if any(_is_a(cls, name) for name in wanted))
        return set().union(*of_them)


def _is_a(cls: type, wanted: str) -> bool:
    package, _, name = wanted.rpartition(".")
    return any(
        base.__name__ == name and (not package or f"{base.__module__}.".startswith(f"{package}."))
        for base in cls.__mro__
    )
