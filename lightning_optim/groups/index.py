"""`ParameterIndex`: a model's parameters by name, kind and class, so that many rules on many names are fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from torch import nn

from .kinds import FROZEN, kinds_of
from .layers import Layers
from .parameters import Occurrence, Parameter, Parameters

_NOT_MATRIX = frozenset({"embedding", "output"})


class ParameterIndex:
    """Every occurrence of every parameter. Selectors work on sets of positions in `occurrences`.

    Args:
        parameters: the result of `read_parameters`.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        self.modules: Mapping[str, nn.Module] = parameters.modules if isinstance(parameters, Parameters) else {}
        """Every module of the model by its clean path; empty where only names are known."""
        self.occurrences: list[Occurrence] = [o for parameter in parameters for o in parameter.occurrences]
        self.parameter_of: list[int] = [
            position for position, parameter in enumerate(parameters) for _ in parameter.occurrences
        ]
        """By occurrence: the position of its parameter in `parameters`."""
        self.names: list[str] = [occurrence.name for occurrence in self.occurrences]
        self.effective_names: dict[int, str] = {
            position: occurrence.effective_name
            for position, occurrence in enumerate(self.occurrences)
            if occurrence.effective_name != occurrence.name
        }
        """By occurrence, for parametrized tensors only: the other name that they can be selected by."""
        self.auto_layers: Layers | None = None
        """The model's own layers, once a rule has asked for them."""

    @cached_property
    def owners(self) -> list[nn.Module]:
        """The modules that use parameters, each once."""
        return list({id(o.owner): o.owner for o in self.occurrences if o.owner is not None}.values())

    @cached_property
    def complete(self) -> ParameterIndex:
        """The index of all parameters of the model, where this is one of some of them."""
        parameters = self.parameters
        if not isinstance(parameters, Parameters) or parameters.complete is parameters:
            return self
        return ParameterIndex(parameters.complete)

    @cached_property
    def by_kind(self) -> dict[str, set[int]]:
        """By kind: its occurrences. A tensor that is an embedding under one of its names is no matrix under another."""
        kinds = [
            kinds_of(
                occurrence.name,
                self.parameters[self.parameter_of[position]].tensor.shape,
                occurrence.owner,
                effective_name=occurrence.effective_name,
                is_input=occurrence.is_input,
                is_output=occurrence.is_output,
                is_exempt=occurrence.is_exempt,
            )
            for position, occurrence in enumerate(self.occurrences)
        ]
        tied_in = {self.parameter_of[position] for position, found in enumerate(kinds) if found & _NOT_MATRIX}
        found: dict[str, set[int]] = {}
        frozen = {p for p, of in enumerate(self.parameter_of) if not self.parameters[of].tensor.requires_grad}
        if frozen:
            found[FROZEN] = frozen
        for position, kinds_here in enumerate(kinds):
            not_here = {"matrix"} if self.parameter_of[position] in tied_in else set()
            for kind in kinds_here - not_here:
                found.setdefault(kind, set()).add(position)
        return found

    @cached_property
    def by_class(self) -> dict[type[nn.Module], set[int]]:
        """By class of the owner module: its occurrences."""
        found: dict[type[nn.Module], set[int]] = {}
        for position, occurrence in enumerate(self.occurrences):
            if occurrence.owner is not None:
                found.setdefault(type(occurrence.owner), set()).add(position)
        return found

    def with_kinds(self, kinds: Iterable[str]) -> set[int]:
        """The occurrences of any of these kinds."""
        return set().union(*(self.by_kind.get(kind, ()) for kind in kinds))

    def with_classes(self, names: Sequence[str]) -> set[int]:
        """The occurrences whose owner is of any of these classes, by name or dotted name; subclasses count."""
        matching = (found for cls, found in self.by_class.items() if any(_is_subclass(cls, name) for name in names))
        return set().union(*matching)


def _is_subclass(cls: type, dotted_name: str) -> bool:
    package, _, name = dotted_name.rpartition(".")
    return any(
        base.__name__ == name and (not package or f"{base.__module__}.".startswith(f"{package}."))
        for base in cls.__mro__
    )
