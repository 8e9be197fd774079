"""`layers: auto`: a model's layers in the order of its own authors, or of the numbered modules in it.

A model of timm tells its order by `group_matcher`. In others, the layers are the members of the outermost series of
numbered modules: `encoder.layer.{i}`. Where each member is a stage with blocks of its own, as `stages.{i}.blocks.{j}`,
the blocks are counted through, and what is beside them in a stage belongs to the nearest block. Several series are
towers, each with its own depth: encoder and decoder, text and image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set

from torch import nn

from ..core.errors import ConfigError, format_names
from .index import ParameterIndex
from .layers import STEM, Layer, Layers
from .module_tree import Node, Series, build_tree, find_outermost_series, find_series
from .timm_layers import find_timm_layers

# Series that are part of the stem, if they are small beside the layers: wav2vec's `feature_extractor.conv_layers`.
_STEM_SERIES = re.compile(r"feature|subsampl|conv|stem|embed|patch", re.IGNORECASE)
_MAX_STEM = 0.1
# Series with a smaller share of the largest one beside them are no layers: the mergers beside a transformer's blocks.
_MIN_SHARE = 0.2
# Several series beside each other with a smaller share of the largest of all are no layers: a detector's projections.
_MIN_TOWER = 0.05
# A norm beside the layers is the last one, unless its name says otherwise.
_FIRST_NORM = re.compile(r"pre|emb|in(put)?(_|$)", re.IGNORECASE)
_HEAD = re.compile(r"head|classif|^fc", re.IGNORECASE)
# The blocks of a stage have at least this share of its parameters.
_MIN_BLOCKS = 0.5


def find_auto_layers(index: ParameterIndex, key: str) -> Layers:
    """The layers of a model.

    Args:
        index: the model's parameters.
        key: the config key, for errors.

    Raises:
        ConfigError: there are no layers, or it is not known in which order they follow each other.
    """
    if index.complete is not index:
        return _translate(find_auto_layers(index.complete, key), index)
    timm = find_timm_layers(index)
    root = build_tree(index)
    layer_of, stem_of = dict(timm.layer_of), dict(timm.stem_of)
    taken = timm.layer_of.keys() | timm.stem_of.keys() | timm.others
    towers = _find_towers(root, taken, key)
    if not towers and not layer_of:
        raise ConfigError(
            f"{key}: auto finds no layers: the model has no numbered modules that contain others. "
            f"Name the modules, for example {key}: [net.stage{{i}}]"
        )
    names = _name_towers([series.pattern for series in towers], has_others=bool(layer_of))
    for series, name in zip(towers, names, strict=True):
        layers = _split(series)
        for rank, occurrences in enumerate(layers):
            layer = Layer(".".join(filter(None, [name, _label(series, layers, rank)])), len(layers) - rank)
            layer_of.update(dict.fromkeys(occurrences, layer))
    for series, name in zip(towers, names, strict=True):
        depth = max(layer_of[occurrence].depth for occurrence in series.occurrences)
        stem = Layer(".".join(filter(None, [name, STEM])), depth + 1)
        stem_of.update(
            {o: stem for o in _find_stem(series, towers, root, index) if o not in layer_of and o not in taken}
        )
    return Layers(layer_of=layer_of, stem_of=stem_of)


def _translate(layers: Layers, index: ParameterIndex) -> Layers:
    """The layers of a model for an index of some of its parameters."""
    complete = index.complete
    position_of = {name: position for position, name in enumerate(index.names)}

    def translate(table: Mapping[int, Layer]) -> dict[int, Layer]:
        named = ((complete.names[occurrence], layer) for occurrence, layer in table.items())
        return {position_of[name]: layer for name, layer in named if name in position_of}

    return Layers(layer_of=translate(layers.layer_of), stem_of=translate(layers.stem_of))


def _find_towers(root: Node, taken: Set[int], key: str) -> list[Series]:
    """The series of layers; of several in one module, the one that is much larger than the others.

    Raises:
        ConfigError: one module has several of similar size. They may follow each other or run side by side, and
            nothing tells which.
    """
    found = [series for series in find_outermost_series(root) if taken.isdisjoint(series.occurrences)]
    largest = max((series.size for series in found), default=0)
    by_holder: dict[str, list[Series]] = {}
    for series in found:
        if series.size >= _MAX_STEM * largest or not _STEM_SERIES.search(series.pattern):
            by_holder.setdefault(series.holder, []).append(series)
    towers = []
    for beside in by_holder.values():
        minimum = _MIN_SHARE * max(series.size for series in beside)
        candidates = [series for series in beside if series.size >= minimum]
        if len(candidates) == 1:
            towers += candidates
        elif max(series.size for series in candidates) >= _MIN_TOWER * largest:
            patterns = [series.pattern for series in candidates]
            raise ConfigError(
                f"{key}: auto finds several series of layers in one module, {format_names(map(repr, patterns))}, and "
                f"their order is not known. Name those that count, for example {key}: {patterns[0]!r}"
            )
    return towers


def _split(series: Series) -> list[list[int]]:
    """The occurrences of each layer: of each member, or of each block where all members are stages of blocks."""
    blocks = [_find_blocks(member) for member in series.members]
    containers = {found[0] for found in blocks if found}
    if not all(blocks) or len(containers) != 1:
        return [member.occurrences for member in series.members]
    layers: list[list[int]] = []
    for member, found in zip(series.members, blocks, strict=True):
        assert found is not None
        layers += _split_stage(member, found[1])
    return layers


def _find_blocks(stage: Node) -> tuple[str, list[Node]] | None:
    """The name of the list of blocks in a stage, empty where the stage itself is the list, and the blocks."""
    for container in (stage, *stage.children.values()):
        for series in find_series(container, min_members=1):
            has_most = series.size >= _MIN_BLOCKS * stage.size
            if not series.prefix and has_most and series.is_similar and not series.is_parallel:
                return "" if container is stage else container.name, series.members
    return None


def _split_stage(stage: Node, blocks: Sequence[Node]) -> Iterator[list[int]]:
    """The occurrences of each block; others of the stage are part of the block before, or of the first."""
    block_of = {occurrence: number for number, block in enumerate(blocks) for occurrence in block.occurrences}
    layers: list[list[int]] = [[] for _ in blocks]
    current = 0
    for occurrence in stage.occurrences:
        current = block_of.get(occurrence, current)
        layers[current].append(occurrence)
    yield from layers


def _label(series: Series, layers: Sequence[Sequence[int]], rank: int) -> str:
    """The number in the member's name; the layer's rank where layers are counted through."""
    is_counted = len(layers) != len(series.members)
    return str(rank) if is_counted else series.members[rank].name.removeprefix(series.prefix)


def _name_towers(patterns: Sequence[str], *, has_others: bool) -> list[str]:
    """For each tower the first segment of its path that the others do not have."""
    if len(patterns) == 1 and not has_others:
        return [""]
    segments = [pattern.split(".") for pattern in patterns]
    names = []
    for path in segments:
        own = [s for s in path[:-1] if sum(s in other for other in segments) == 1]
        names.append(own[0] if own else "-".join(path[:-1]))
    return names


def _find_stem(series: Series, towers: Sequence[Series], root: Node, index: ParameterIndex) -> Iterator[int]:
    """What comes before the first layer, in the largest module around the series that has no other tower in it.

    Of the modules around several towers, only what is an embedding and comes before all of them.
    """
    orders = [occurrence.order for occurrence in index.occurrences]
    first = min(orders[occurrence] for occurrence in series.occurrences)
    is_first = all(first < orders[o] for tower in towers if tower is not series for o in tower.occurrences)
    inside = _largest_without(root, series, towers, index)
    embeddings = index.with_kinds(["embedding"]) if is_first else set()
    for occurrence in root.occurrences:
        is_before = orders[occurrence] < first and not _is_output(occurrence, series, index)
        if is_before and (occurrence in inside or occurrence in embeddings):
            yield occurrence


def _largest_without(root: Node, series: Series, towers: Sequence[Series], index: ParameterIndex) -> set[int]:
    """The occurrences in the largest module around a series that has no other tower in it and is no LightningModule."""
    others = [set(tower.occurrences) for tower in towers if tower is not series]
    node = root
    while _is_lightning(index.modules.get(node.path)) or any(not o.isdisjoint(node.occurrences) for o in others):
        step = series.parent.path.removeprefix(node.path).lstrip(".").partition(".")[0]
        if not step:
            return set()
        node = node.children[step]
    return set(node.occurrences)


def _is_lightning(module: nn.Module | None) -> bool:
    return any(base.__name__ == "LightningModule" for base in type(module).__mro__)


def _is_output(occurrence: int, series: Series, index: ParameterIndex) -> bool:
    """Whether it comes after the layers, although the model defines it before them: a final norm, or a head."""
    path = index.names[occurrence].split(".")
    is_beside = ".".join(path[:-2]) == series.holder
    if is_beside and occurrence in index.with_kinds(["norm"]):
        return not _FIRST_NORM.search(path[-2])
    return path[0] != series.pattern.partition(".")[0] and bool(_HEAD.search(path[0]))
