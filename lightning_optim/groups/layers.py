"""Layers: modules counted by the number in their path, and the stem that comes before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.errors import ConfigError
from .index import Index
from .patterns import layer_matcher

STEM = "stem"


@dataclass(frozen=True)
class Layer:
    """One of a rule's layers."""

    label: str
    """Its number in the model, or `stem`: what it is called in the group's name."""
    depth: int
    """How far it is from the output: 1 for the last layer, n for the first of n, n + 1 for the stem."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of a rule in one model."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    """By use: the number of the layer it is in."""
    depths: Mapping[int, int] = field(default_factory=dict)
    """By number: how far that layer is from the output."""

    @classmethod
    def find(cls, patterns: Sequence[str], index: Index, among: Iterable[int], key: str) -> Layers:
        """Every use among these that is in a layer.

        Args:
            patterns: globs on module paths with one `{i}`; each match with all below it is a layer.
            index: the model.
            among: uses.
            key: where the patterns stand in the config.

        Raises:
            ConfigError: one layer stands inside another.
        """
        number_of = _Numbers(patterns, key)
        numbers = {}
        for use in among:
            number = number_of[index.names[use].rpartition(".")[0]]
            if number is not None:
                numbers[use] = number
        ordered = sorted(set(numbers.values()))
        return cls(numbers=numbers, depths={number: len(ordered) - rank for rank, number in enumerate(ordered)})

    def layer(self, use: int) -> Layer | None:
        """The layer that a use is in."""
        number = self.numbers.get(use)
        return None if number is None else Layer(str(number), self.depths[number])

    def stem(self) -> Layer:
        """What comes before the first layer."""
        return Layer(STEM, len(self.depths) + 1)

    def before(self, index: Index) -> set[int]:
        """The uses that share a layer's first segment and come before the first such layer."""
        first: dict[str, int] = {}
        for use in self.numbers:
            segment = index.names[use].partition(".")[0]
            first[segment] = min(index.uses[use].place, first.get(segment, index.uses[use].place))
        return {place for place, use in enumerate(index.uses) if use.place < first.get(use.name.partition(".")[0], -1)}


class _Numbers(dict[str, int | None]):
    """By module path: the number of the layer it is in."""

    def __init__(self, patterns: Sequence[str], key: str) -> None:
        super().__init__({"": None})
        self._matchers = [layer_matcher(pattern) for pattern in patterns]
        self._key = key

    def __missing__(self, path: str) -> int | None:
        above = self[path.rpartition(".")[0]]
        found = next((match for matcher in self._matchers if (match := matcher(path))), None)
        if found and above is not None:
            raise ConfigError(
                f"{self._key}: {path} is a layer inside layer {above}. Write the path out as far as {{i}}, with no * "
                "that reaches into a layer"
            )
        self[path] = number = int(found["i"]) if found else above
        return number
