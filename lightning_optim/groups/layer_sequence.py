"""`LayerSequence`: layers of which each takes the output of the one before, with the stem before them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .layers import STEM, Layer, Layers


@dataclass(frozen=True, kw_only=True)
class LayerSequence:
    """The layers of one tower. Occurrences are positions in `ParameterIndex.occurrences`."""

    path: str
    """The module that has them, which gives the tower its name."""
    layers: Mapping[str, Collection[int]]
    """By label, from the first layer to the last: the occurrences in it."""
    stem: Collection[int]
    """The occurrences that come before the first layer."""
    has_head: bool = True
    """Whether the model goes on after the last layer. Where it does not, the last layer has depth 0, as in timm."""

    def to_layers(self, prefix: str) -> Layers:
        """The layers with their depths; the prefix comes before each label."""
        last_depth = 1 if self.has_head else 0
        num_layers = len(self.layers)
        layer_of: dict[int, Layer] = {}
        for rank, (label, occurrences) in enumerate(self.layers.items()):
            layer_of.update(dict.fromkeys(occurrences, Layer(f"{prefix}{label}", num_layers - 1 - rank + last_depth)))
        stem = Layer(f"{prefix}{STEM}", num_layers + last_depth)
        return Layers(layer_of=layer_of, stem_of=dict.fromkeys(self.stem, stem))
