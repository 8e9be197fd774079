"""Layers: the modules of a model in the order of computation, and the stem that comes before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STEM = "stem"
AUTO = "auto"
"""In place of patterns: the model's own order."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One of a rule's layers."""

    label: str
    """Its number, or `stem`: its part of a group's name. With several towers, the tower's name comes before it."""
    depth: int
    """Its distance from the output: 1 for the last layer, n for the first of n, n + 1 for the stem."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of a model. Occurrences are positions in `ParameterIndex.occurrences`."""

    layer_of: Mapping[int, Layer] = field(default_factory=dict)
    """By occurrence: its layer."""
    stem_of: Mapping[int, Layer] = field(default_factory=dict)
    """By occurrence: the stem that it is part of."""

    def restrict(self, occurrences: Iterable[int]) -> Layers:
        """The same layers, of some occurrences only."""
        kept = set(occurrences)
        if kept.issuperset(self.layer_of) and kept.issuperset(self.stem_of):
            return self
        return Layers(
            layer_of={occurrence: layer for occurrence, layer in self.layer_of.items() if occurrence in kept},
            stem_of={occurrence: layer for occurrence, layer in self.stem_of.items() if occurrence in kept},
        )

    def with_stem(self, occurrences: Iterable[int]) -> Layers:
        """The same layers with another stem."""
        stem = Layer(STEM, max((layer.depth for layer in self.layer_of.values()), default=0) + 1)
        return Layers(layer_of=self.layer_of, stem_of=dict.fromkeys(occurrences, stem))
