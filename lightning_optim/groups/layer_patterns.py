"""`match_layers`: the layers that the patterns of a rule name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..core.errors import ConfigError
from .index import ParameterIndex
from .layers import STEM, Layer, Layers
from .patterns import compile_layer_pattern


def match_layers(patterns: Sequence[str], index: ParameterIndex, occurrences: Iterable[int], key: str) -> Layers:
    """The layers that patterns name, among some occurrences.

    Args:
        patterns: globs on module paths with `{i}`, or `{i}` and `{j}`; each match, with all below it, is a layer.
        index: the model's parameters.
        occurrences: the ones to match, as positions in `index.occurrences`.
        key: the config key of the patterns.

    Raises:
        ConfigError: a layer is inside another one.
    """
    number_of = _LayerNumbers(patterns, key)
    numbers: dict[int, tuple[int, ...]] = {}
    for occurrence in occurrences:
        number = number_of[index.names[occurrence].rpartition(".")[0]]
        if number is not None:
            numbers[occurrence] = number
    ordered = sorted(set(numbers.values()))
    # With two numbers, as in `stages.{i}.blocks.{j}`, the label is the position among the blocks of all stages.
    is_single = all(len(number) == 1 for number in ordered)
    layers = {
        number: Layer(str(number[0] if is_single else rank), len(ordered) - rank) for rank, number in enumerate(ordered)
    }
    layer_of = {occurrence: layers[number] for occurrence, number in numbers.items()}
    stem = Layer(STEM, len(ordered) + 1)
    return Layers(layer_of=layer_of, stem_of=dict.fromkeys(_before_layers(layer_of, index), stem))


def _before_layers(layer_of: Mapping[int, Layer], index: ParameterIndex) -> set[int]:
    """The occurrences that share the first segment of a layer's path and come before the first such layer."""
    first_layer: dict[str, int] = {}
    for position in layer_of:
        segment, order = index.names[position].partition(".")[0], index.occurrences[position].order
        first_layer[segment] = min(order, first_layer.get(segment, order))
    return {
        position
        for position, occurrence in enumerate(index.occurrences)
        if occurrence.order < first_layer.get(occurrence.name.partition(".")[0], -1)
    }


class _LayerNumbers(dict[str, tuple[int, ...] | None]):
    """By module path: the numbers of the layer it is in, or None. An entry is computed when it is first read."""

    def __init__(self, patterns: Sequence[str], key: str) -> None:
        super().__init__({"": None})
        self._matchers = [compile_layer_pattern(pattern) for pattern in patterns]
        self._key = key

    def __missing__(self, path: str) -> tuple[int, ...] | None:
        outer = self[path.rpartition(".")[0]]
        found = next((match for matcher in self._matchers if (match := matcher(path))), None)
        if found and outer is not None:
            raise ConfigError(
                f"{self._key}: {path} is a layer inside layer {'.'.join(map(str, outer))}. Write the path out up to "
                "{i}, without a * that also matches inside a layer"
            )
        self[path] = number = tuple(int(group) for group in found.groups()) if found else outer
        return number
