"""`layers: auto`: a model's layers in the order of its own authors, or of the numbered modules in it.

A model of timm defines its order by `group_matcher`. In others, the layers are the members of the outermost series of
numbered modules: `encoder.layer.{i}`. Where each member is a stage with blocks of its own, as `stages.{i}.blocks.{j}`,
the blocks are counted through, and what is beside them in a stage belongs to the nearest block. Several series are
towers, each with its own depth: encoder and decoder, text and image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..core.errors import ConfigError
from .index import ParameterIndex
from .layer_sequence import LayerSequence
from .layers import Layer, Layers
from .module_tree import Node, build_tree
from .stems import find_stem
from .timm_layers import find_timm_models
from .towers import Tower, find_towers

# A group's name has the tower's name in it: characters that are not allowed there are replaced.
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


def find_auto_layers(index: ParameterIndex, key: str) -> Layers:
    """The layers of a model.

    Args:
        index: the model's parameters.
        key: the config key, for errors.

    Raises:
        ConfigError: there are no layers, or it is not known in which order they follow each other.
    """
    if index.auto_layers is None:
        if index.complete is index:
            index.auto_layers = _find_in_model(index, key)
        else:
            index.auto_layers = _translate(find_auto_layers(index.complete, key), index)
    return index.auto_layers


def _find_in_model(index: ParameterIndex, key: str) -> Layers:
    timm_models = find_timm_models(index)
    in_timm = frozenset[int]().union(*(model.occurrences for model in timm_models))
    root = build_tree(index)
    towers = find_towers(root, in_timm, key)
    sequences = [model.sequence for model in timm_models]
    sequences += [_to_sequence(tower, towers, in_timm, root, index) for tower in towers]
    if not any(sequence.layers for sequence in sequences):
        raise ConfigError(
            f"{key}: auto finds no layers: it needs two or more numbered modules that contain others, or a ModuleList "
            f"of two or more modules. Name yours with {{i}} in place of the number, for example {key}: net.stage{{i}}; "
            "or write one entry for each module, selected by params"
        )
    prefixes = _name_towers([model.sequence.path for model in timm_models])
    prefixes += _name_towers([tower.series.parent.path for tower in towers], beside=prefixes)
    found = [sequence.to_layers(prefix) for sequence, prefix in zip(sequences, prefixes, strict=True)]
    layer_of = {occurrence: layer for layers in found for occurrence, layer in layers.layer_of.items()}
    stem_of = {occurrence: layer for layers in found for occurrence, layer in layers.stem_of.items()}
    stem_of = {occurrence: layer for occurrence, layer in stem_of.items() if occurrence not in layer_of}
    return Layers(layer_of=layer_of, stem_of=stem_of)


def _to_sequence(
    tower: Tower, towers: Sequence[Tower], in_timm: frozenset[int], root: Node, index: ParameterIndex
) -> LayerSequence:
    series = tower.series
    others = [other.series for other in towers if other is not tower]
    before = find_stem(series, others, in_timm, root, index)
    return LayerSequence(path=series.parent.path, layers=tower.layers(), stem={*before, *tower.stem()} - in_timm)


def _name_towers(paths: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """What the labels of each tower start with: the first segment of its path that no other tower has.

    Args:
        paths: of the modules that the towers are in.
        beside: the result for other towers.
    """
    if len(paths) == 1 and not beside:
        return [""]
    segments_of = [path.split(".") if path else [] for path in paths]
    names: list[str] = []
    for segments in segments_of:
        unique = [segment for segment in segments if sum(segment in other for other in segments_of) == 1]
        name = _NOT_IN_NAME.sub("_", unique[0] if unique else "-".join(segments))
        while name in names or f"{name}." in beside:  # `a b` beside `a_b`
            name += "_"
        names.append(name)
    return [f"{name}." if name else "" for name in names]


def _translate(layers: Layers, index: ParameterIndex) -> Layers:
    """The layers of a model for an index of some of its parameters."""
    position_of = {name: position for position, name in enumerate(index.names)}

    def translate(table: Mapping[int, Layer]) -> dict[int, Layer]:
        named = ((index.complete.names[occurrence], layer) for occurrence, layer in table.items())
        return {position_of[name]: layer for name, layer in named if name in position_of}

    return Layers(layer_of=translate(layers.layer_of), stem_of=translate(layers.stem_of))
