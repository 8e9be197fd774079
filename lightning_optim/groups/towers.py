"""The towers of a model: its series of layers, with what is beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain

from ..core.errors import ConfigError, format_names
from .module_tree import Node, Series, find_outermost_series, find_series

# Series that are part of the stem, if they are small beside the layers: wav2vec's `feature_extractor.conv_layers`.
_STEM = re.compile(r"feature|subsampl|conv|stem|embed|patch", re.IGNORECASE)
_MAX_STEM = 0.1
# What leads from one stage to the next, where it is a series of its own beside the stages: `downsample_layers.{i}`.
_DOWNSAMPLING = re.compile(r"downsampl|patch_?embed|transition|merging|reduction", re.IGNORECASE)
# Series with a smaller share of the largest one beside them are no layers: the mergers beside a transformer's blocks.
_MIN_SHARE = 0.2
# Several series beside each other with a smaller share of the largest of all are no layers: a detector's projections.
_MIN_TOWER = 0.05
# The blocks of a stage have at least this share of its parameters.
_MIN_BLOCKS = 0.5


@dataclass(frozen=True)
class Tower:
    """A series of layers, one after the other."""

    series: Series
    beside: tuple[Series, ...] = ()
    """Series with as many members as this one has stages, or one less: member by member, they belong to the stages."""

    def split(self) -> list[list[int]]:
        """The occurrences of each layer: of each member, or of each block where all members are stages of blocks."""
        stages = self._stages()
        for series in self.beside:
            is_before = _is_downsampling(series)
            first_stage = len(stages) - len(series.members)
            for number, member in enumerate(series.members, start=first_stage):
                if number or not is_before:  # what is before the first stage is the stem
                    stages[number][0 if is_before else -1] += member.occurrences
        return [occurrences for layers in stages for occurrences in layers]

    def label(self, rank: int, num_layers: int) -> str:
        """The number in the member's name; its rank where the blocks of stages are counted through."""
        is_counted = num_layers != len(self.series.members)
        return str(rank) if is_counted else self.series.members[rank].name.removeprefix(self.series.prefix)

    def _stages(self) -> list[list[list[int]]]:
        members = self.series.members
        blocks = [_find_blocks(member) for member in members]
        if len({name for name, _ in blocks}) != 1 or not all(found for _, found in blocks):
            return [[list(member.occurrences)] for member in members]
        return [list(_split_stage(member, found)) for member, (_, found) in zip(members, blocks, strict=True)]


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
    found = [series for series in find_outermost_series(root) if taken.isdisjoint(series.occurrences)]
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
        rivals = [s for s in beside if s.size >= _MIN_SHARE * main.size and s.pattern not in patterns_of_parts]
        if len(rivals) == 1:
            towers.append(Tower(main, parts))
        elif main.size >= _MIN_TOWER * largest:
            patterns = [series.pattern for series in rivals]
            raise ConfigError(
                f"{key}: auto finds several series of layers in one module, {format_names(map(repr, patterns))}, and "
                f"their order is not known. Name those that count, for example {key}: {patterns[0]!r}"
            )
    return towers


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


def _split_stage(stage: Node, blocks: Sequence[Node]) -> Iterator[list[int]]:
    """The occurrences of each block; others of the stage are part of the block before, or of the first."""
    block_of = {occurrence: number for number, block in enumerate(blocks) for occurrence in block.occurrences}
    layers: list[list[int]] = [[] for _ in blocks]
    current = 0
    for occurrence in stage.occurrences:
        current = block_of.get(occurrence, current)
        layers[current].append(occurrence)
    yield from layers
