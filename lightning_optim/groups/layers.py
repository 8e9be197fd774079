"""Layers: modules ordered by the number in their path, and the stem that comes before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.errors import ConfigError
from .index import ParameterIndex
from .patterns import compile_layer_pattern

STEM = "stem"


@dataclass(frozen=True)
class Layer:
    """One of a rule's layers."""

    label: str
    """Its number in the model, or `stem`: its part of a group's name."""
    depth: int
    """Its distance from the output: 1 for the last layer, n for the first of n, n + 1 for the stem."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of a rule in one model. Occurrences are positions in `ParameterIndex.occurrences`."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    """By occurrence: the number of its layer."""
    depths: Mapping[int, int] = field(default_factory=dict)
    """By number: the layer's distance from the output."""

    @classmethod
    def find(cls, patterns: Sequence[str], index: ParameterIndex, occurrences: Iterable[int], key: str) -> Layers:
        """The layers of those occurrences that are in one.

        Args:
            patterns: globs on module paths with one `{i}`; each match, with all modules below it, is a layer.
            index: the model's parameters.
            occurrences: the ones to look at.
            key: the config key of the patterns.

        Raises:
            ConfigError: a layer is inside another one.
        """
        number_of = _LayerNumbers(patterns, key)
        numbers = {}
        for occurrence in occurrences:
            number = number_of[index.names[occurrence].rpartition(".")[0]]
            if number is not None:
                numbers[occurrence] = number
        ordered = sorted(set(numbers.values()))
        return cls(numbers=numbers, depths={number: len(ordered) - rank for rank, number in enumerate(ordered)})

    def find_layer(self, occurrence: int) -> Layer | None:
        """The layer that an occurrence is in."""
        number = self.numbers.get(occurrence)
        return None if number is None else Layer(str(number), self.depths[number])

    def stem(self) -> Layer:
        """The stem as a layer: one deeper than the first."""
        return Layer(STEM, len(self.depths) + 1)

    def default_stem(self, index: ParameterIndex) -> set[int]:
        """The occurrences that share the first segment of a layer's path and come before the first such layer."""
        first_layer: dict[str, int] = {}
        for position in self.numbers:
            segment, order = index.names[position].partition(".")[0], index.occurrences[position].order
            first_layer[segment] = min(order, first_layer.get(segment, order))
        return {
            position
            for position, occurrence in enumerate(index.occurrences)
            if occurrence.order < first_layer.get(occurrence.name.partition(".")[0], -1)
        }


class _LayerNumbers(dict[str, int | None]):
    """By module path: the number of the layer it is in. Filled in on look-up."""

    def __init__(self, patterns: Sequence[str], key: str) -> None:
        super().__init__({"": None})
        self._matchers = [compile_layer_pattern(pattern) for pattern in patterns]
        self._key = key

    def __missing__(self, path: str) -> int | None:
        outer = self[path.rpartition(".")[0]]
        found = next((match for matcher in self._matchers if (match := matcher(path))), None)
        if found and outer is not None:
            raise ConfigError(
                f"{self._key}: {path} is a layer inside layer {outer}. Write the path out up to {{i}}, without a * "
                "that also matches inside a layer"
            )
        self[path] = number = int(found["i"]) if found else outer
        return number
