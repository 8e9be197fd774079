"""`layers: auto`: a model's layers in the order of its own authors, or of the numbered modules in it.

A model of timm tells its order by `group_matcher`. In others, the layers are the members of the outermost series of
numbered modules: `encoder.layer.{i}`. Where each member is a stage with blocks of its own, as `stages.{i}.blocks.{j}`,
the blocks are counted through, and what is beside them in a stage belongs to the nearest block. Several series are
towers, each with its own depth: encoder and decoder, text and image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from torch import nn

from ..core.errors import ConfigError
from .index import ParameterIndex
from .layers import STEM, Layer, Layers
from .module_tree import Node, Series, build_tree
from .timm_layers import find_timm_layers
from .towers import find_towers

# A norm beside the layers is the last one, unless its name says otherwise: `pre_norm`, a ResNet's `bn1`.
_FIRST_NORM = re.compile(r"pre|emb|in(put)?(_|$)|\d$", re.IGNORECASE)
_HEAD = re.compile(r"head|classif|^fc", re.IGNORECASE)


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
            index.auto_layers = _find(index, key)
        else:
            index.auto_layers = _translate(find_auto_layers(index.complete, key), index)
    return index.auto_layers


def _find(index: ParameterIndex, key: str) -> Layers:
    timm = find_timm_layers(index)
    root = build_tree(index)
    layer_of, stem_of = dict(timm.layer_of), dict(timm.stem_of)
    taken = timm.layer_of.keys() | timm.stem_of.keys() | timm.others
    towers = find_towers(root, taken, key)
    if not towers and not layer_of:
        raise ConfigError(
            f"{key}: auto finds no layers: the model has no ModuleList and no numbered modules that contain others. "
            f"Name the modules, for example {key}: [net.stage{{i}}]"
        )
    prefixes = _name_towers([tower.series.pattern for tower in towers], has_others=bool(layer_of))
    stems = {}
    for tower, prefix in zip(towers, prefixes, strict=True):
        layers = tower.split()
        for rank, occurrences in enumerate(layers):
            layer = Layer(f"{prefix}{tower.label(rank, len(layers))}", len(layers) - rank)
            layer_of.update(dict.fromkeys(occurrences, layer))
        stems[prefix] = Layer(f"{prefix}{STEM}", len(layers) + 1)
    all_series = [tower.series for tower in towers]
    for series, stem in zip(all_series, stems.values(), strict=True):
        before = (occurrence for occurrence in _find_stem(series, all_series, root, index) if occurrence not in taken)
        stem_of.update({occurrence: stem for occurrence in before if occurrence not in layer_of})
    return Layers(layer_of=layer_of, stem_of=stem_of)


def _translate(layers: Layers, index: ParameterIndex) -> Layers:
    """The layers of a model for an index of some of its parameters."""
    position_of = {name: position for position, name in enumerate(index.names)}

    def translate(table: Mapping[int, Layer]) -> dict[int, Layer]:
        named = ((index.complete.names[occurrence], layer) for occurrence, layer in table.items())
        return {position_of[name]: layer for name, layer in named if name in position_of}

    return Layers(layer_of=translate(layers.layer_of), stem_of=translate(layers.stem_of))


def _name_towers(patterns: Sequence[str], *, has_others: bool) -> list[str]:
    """What the labels of each tower start with: the first segment of its path that no other tower has."""
    if len(patterns) == 1 and not has_others:
        return [""]
    paths = [pattern.split(".")[:-1] for pattern in patterns]
    names = []
    for path in paths:
        own = [segment for segment in path if sum(segment in other for other in paths) == 1]
        names.append(f"{own[0] if own else '-'.join(path)}.")
    return names


def _find_stem(series: Series, towers: Sequence[Series], root: Node, index: ParameterIndex) -> Iterator[int]:
    """What comes before the first layer, in the largest module around the series that has no other tower in it.

    Of the modules around several towers, only what is an embedding and comes before all of them.
    """
    orders = [occurrence.order for occurrence in index.occurrences]
    others = [tower for tower in towers if tower is not series]
    first = min(orders[occurrence] for occurrence in series.occurrences)
    is_first = all(first < orders[occurrence] for occurrence in chain.from_iterable(s.occurrences for s in others))
    inside = _largest_without(others, series, root, index)
    embeddings = index.by_kind.get("embedding", set()) if is_first else set()
    for occurrence in root.occurrences:
        is_before = orders[occurrence] < first and not _is_output(occurrence, series, index)
        if is_before and (occurrence in inside or occurrence in embeddings):
            yield occurrence


def _largest_without(others: Sequence[Series], series: Series, root: Node, index: ParameterIndex) -> set[int]:
    """The occurrences in the largest module around a series that has no other tower in it and is no LightningModule."""
    elsewhere = {occurrence for other in others for occurrence in other.occurrences}
    node = root
    while _is_lightning_module(index.modules.get(node.path)) or not elsewhere.isdisjoint(node.occurrences):
        step = series.parent.path.removeprefix(node.path).lstrip(".").partition(".")[0]
        if not step:
            return set()
        node = node.children[step]
    return set(node.occurrences)


def _is_lightning_module(module: nn.Module | None) -> bool:
    return any(base.__name__ == "LightningModule" for base in type(module).__mro__)


def _is_output(occurrence: int, series: Series, index: ParameterIndex) -> bool:
    """Whether it comes after the layers, although the model defines it before them: a final norm, or a head."""
    path = index.names[occurrence].split(".")
    is_beside = ".".join(path[:-2]) == series.holder
    if is_beside and occurrence in index.by_kind.get("norm", ()):
        return not _FIRST_NORM.search(path[-2])
    return path[0] != series.pattern.partition(".")[0] and bool(_HEAD.search(path[0]))
