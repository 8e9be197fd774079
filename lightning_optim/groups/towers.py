"""The towers of a model: its series of layers, with the modules beside them that belong to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations

from ..core.errors import ConfigError, format_names
from .module_tree import Node, Series, find_outermost_series, find_series

# Series that are part of the stem, if they are small beside the layers: wav2vec's `feature_extractor.conv_layers`.
_STEM = re.compile(r"feature|subsampl|conv|stem|embed|patch", re.IGNORECASE)
_MAX_STEM = 0.1
# What leads from one stage to the next, where it is a series of its own beside the stages: `downsample_layers.{i}`.
_DOWNSAMPLING = re.compile(r"downsampl|patch_?embed|transition|merging|reduction", re.IGNORECASE)
# Series with a smaller share of the largest one in their module are no layers: the mergers beside a ViT's blocks.
_MIN_SHARE = 0.2
# Modules with several series count only from this share of the model's largest one on: not a detector's projections.
_MIN_TOWER = 0.05
# The blocks of a stage, or the layers in one step of a `Sequential`, have at least this share of its parameters.
_MIN_BLOCKS = 0.5
# Two modules of a `Sequential` are alike if they have at least this share of patterns of paths in common.
_MIN_ALIKE = 0.5
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Tower:
    """A series of layers, each after the one before."""

    series: Series
    parts: tuple[Series, ...] = ()
    """Series beside it whose members belong to its members, one to one. The first member may have none."""

    def layers(self) -> dict[str, list[int]]:
        """By label: the occurrences of each layer. A layer is a member; or a block, where all members are stages.

        The label is the number in the member's name, or the block's position among those of all stages.
        """
        stages = [[list(layer) for layer in stage] for stage in self._stages]
        for part in self.parts:
            for stage, occurrences in self._assign(part).items():
                stages[stage][0 if _is_downsampling(part) else -1] += occurrences
        layers = list(chain.from_iterable(stages))
        if len(layers) != len(stages):
            return {str(position): layer for position, layer in enumerate(layers)}
        names = [member.name.removeprefix(self.series.prefix) for member in self.series.members]
        return dict(zip(names, layers, strict=True))

    def stem(self) -> list[int]:
        """The occurrences of downsampling before the first stage."""
        downsampling = [part for part in self.parts if _is_downsampling(part) and self._first_stage(part) == 0]
        return [occurrence for part in downsampling for occurrence in part.members[0].occurrences]

    def _assign(self, part: Series) -> dict[int, list[int]]:
        """By stage: the occurrences of a part that belong to it."""
        members = enumerate(part.members, start=self._first_stage(part))
        is_stem = _is_downsampling(part)
        return {stage: member.occurrences for stage, member in members if stage or not is_stem}

    def _first_stage(self, part: Series) -> int:
        return len(self.series.members) - len(part.members)

    @cached_property
    def _stages(self) -> list[list[list[int]]]:
        """By member: the occurrences of each of its blocks, or of itself as the only one."""
        members = self.series.members
        blocks = [_find_blocks(member) for member in members]
        if len({name for name, _ in blocks}) != 1 or not all(found for _, found in blocks):
            return [[list(member.occurrences)] for member in members]
        return [_split_stage(member, found) for member, (_, found) in zip(members, blocks, strict=True)]


def find_towers(root: Node, taken: Set[int], key: str) -> list[Tower]:
    """The series of layers in a model; of several in one module, the one that is much larger than the others.

    Args:
        root: the model.
        taken: occurrences whose layer is known already.
        key: the config key, for errors.

    Raises:
        ConfigError: one module has several of similar size. They may follow each other or run side by side, and
            nothing tells which.
    """
    found = [series for series in _find_series_of_layers(root) if taken.isdisjoint(series.occurrences)]
    largest = max((series.size for series in found), default=0)
    by_holder: dict[str, list[Series]] = {}
    for series in found:
        if series.size >= _MAX_STEM * largest or not _STEM.search(series.pattern):
            by_holder.setdefault(series.holder, []).append(series)
    towers = []
    for holder, beside in by_holder.items():
        main = max(beside, key=lambda series: series.size)
        parts = tuple(series for series in _find_beside(root, holder, main) if _is_part(series, main))
        patterns_of_parts = {series.pattern for series in parts}
        candidates = [s for s in beside if s.size >= _MIN_SHARE * main.size and s.pattern not in patterns_of_parts]
        if len(candidates) == 1:
            towers.append(Tower(main, parts))
        elif main.size >= _MIN_TOWER * largest:
            patterns = [series.pattern for series in candidates]
            raise ConfigError(
                f"{key}: auto finds several series of layers in one module, {format_names(map(repr, patterns))}, and "
                f"their order is not known. Name those that count, for example {key}: {patterns[0]!r}"
            )
    return towers


def _find_series_of_layers(root: Node) -> Iterator[Series]:
    """The outermost series; inside a `Sequential` of a whole model and its head, those of the model."""
    for series in find_outermost_series(root):
        inside = [s for member in series.members for s in _find_series_of_layers(member)] if _is_chain(series) else []
        has_most = sum(s.size for s in inside) >= _MIN_BLOCKS * series.size
        yield from inside if inside and has_most else [series]


def _is_chain(series: Series) -> bool:
    """Whether it is a `Sequential` of different modules, as `Sequential(backbone, head)`: no two of them are alike."""
    if series.prefix or series.parent.is_list:
        return False
    contents = [_relative_patterns(member) for member in series.members if member.children]
    return not any(len(a & b) >= _MIN_ALIKE * len(a | b) for a, b in combinations(contents, 2))


def _relative_patterns(node: Node) -> set[str]:
    """The paths of the modules in it, with `{i}` in place of numbers: how many repeated blocks it has is left out."""
    patterns = set()
    for child in node.children.values():
        name = _NUMBER.sub("{i}", child.name)
        patterns |= {name, *(f"{name}.{below}" for below in _relative_patterns(child))}
    return patterns


def _find_beside(root: Node, holder: str, main: Series) -> Iterator[Series]:
    """The other series of a module, of single layers too: those of its attributes, and the lists among them."""
    node = root
    for segment in filter(None, holder.split(".")):
        node = node.children[segment]
    lists = [child for child in node.children.values() if all(child is not member for member in main.members)]
    found = chain(find_series(node), *(find_series(child) for child in lists))
    yield from (series for series in found if series.holder == holder and series.pattern != main.pattern)


def _is_part(series: Series, main: Series) -> bool:
    """Whether the members of a series belong to those of the main one, and are no layers of their own."""
    if series.is_parallel:
        return False
    if _is_downsampling(series):
        return len(main.members) - len(series.members) in (0, 1)
    is_small = not series.is_composite or series.size < _MIN_SHARE * main.size
    return len(main.members) == len(series.members) and is_small


def _is_downsampling(series: Series) -> bool:
    return bool(_DOWNSAMPLING.search(series.prefix or series.parent.name))


def _find_blocks(stage: Node) -> tuple[str, Sequence[Node]]:
    """The name of the list of blocks in a stage, empty where the stage itself is the list, and the blocks."""
    for container in (stage, *stage.children.values()):
        for series in find_series(container, min_members=1):
            has_most = series.size >= _MIN_BLOCKS * stage.size
            is_listed = series.is_composite or series.parent.is_list
            if not series.prefix and has_most and is_listed and series.is_similar and not series.is_parallel:
                return "" if container is stage else container.name, series.members
    return "", ()


def _split_stage(stage: Node, blocks: Sequence[Node]) -> list[list[int]]:
    """The occurrences of each block; others of the stage are part of the block before, or of the first."""
    block_of = {occurrence: number for number, block in enumerate(blocks) for occurrence in block.occurrences}
    layers: list[list[int]] = [[] for _ in blocks]
    current = 0
    for occurrence in stage.occurrences:
        current = block_of.get(occurrence, current)
        layers[current].append(occurrence)
    return layers
