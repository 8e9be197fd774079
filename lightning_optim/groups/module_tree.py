"""The tree of modules that a model's parameter names describe, and the series of numbered modules in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from .index import ParameterIndex

_NUMBERED = re.compile(r"(.*?)(\d+)")
# The modules of such a list run side by side, not one after the other.
_PARALLEL = re.compile(r"expert|branch|head|classif|ensemble|towers$", re.IGNORECASE)
# Two modules of a series have at least this share of parameter names in common.
_MIN_SIMILARITY = 0.5


@dataclass(eq=False)
class Node:
    """A module, as far as the names of parameters tell."""

    path: str
    children: dict[str, Node] = field(default_factory=dict)
    occurrences: list[int] = field(default_factory=list)
    """Of the parameters in it and below it."""
    size: int = 0
    """The number of elements of those parameters."""
    is_list: bool = False
    """Whether it is a `ModuleList`: modules in it are listed because they are of the same kind."""

    @property
    def name(self) -> str:
        """The last segment of its path."""
        return self.path.rpartition(".")[2]


@dataclass(eq=False)
class Series:
    """Modules of the same parent that differ in a number: `encoder.layer.{i}`, `layer{i}`."""

    parent: Node
    prefix: str
    """The name before the number."""
    members: list[Node]
    """In the order of their numbers."""

    @property
    def pattern(self) -> str:
        """Its glob, as a user would write it."""
        return f"{self.parent.path}.{self.prefix}{{i}}".lstrip(".")

    @property
    def holder(self) -> str:
        """The path of the module that has it, as an attribute or as the members of a list."""
        return self.parent.path if self.prefix else self.parent.path.rpartition(".")[0]

    @property
    def occurrences(self) -> list[int]:
        """Of the parameters in it."""
        return [occurrence for member in self.members for occurrence in member.occurrences]

    @property
    def size(self) -> int:
        """The number of elements of its parameters."""
        return sum(member.size for member in self.members)

    @property
    def is_composite(self) -> bool:
        """Whether its members contain modules, and are not single layers such as `fc1`, `fc2`."""
        return any(member.children for member in self.members)

    @property
    def is_parallel(self) -> bool:
        """Whether its members are known not to follow each other."""
        return bool(_PARALLEL.search(self.prefix or self.parent.name))

    @property
    def is_similar(self) -> bool:
        """Whether the members have mostly the same parameters, as repeated blocks do."""
        names = [_relative_names(member) for member in self.members]
        return all(len(first & second) >= _MIN_SIMILARITY * len(first | second) for first, second in pairwise(names))


def build_tree(index: ParameterIndex) -> Node:
    """The root of the tree. Nodes know the parameters below them in the model's order."""
    root = Node("")
    nodes_to: dict[str, tuple[Node, ...]] = {"": (root,)}

    def find_nodes(path: str) -> tuple[Node, ...]:
        """The module, after all modules that contain it."""
        if path not in nodes_to:
            outer, _, name = path.rpartition(".")
            ancestors = find_nodes(outer)
            node = Node(path, is_list=isinstance(index.modules.get(path), nn.ModuleList))
            nodes_to[path] = (*ancestors, ancestors[-1].children.setdefault(name, node))
        return nodes_to[path]

    for position in sorted(range(len(index.names)), key=lambda position: index.occurrences[position].order):
        size = index.parameters[index.parameter_of[position]].tensor.numel()
        for node in find_nodes(index.names[position].rpartition(".")[0]):
            node.occurrences.append(position)
            node.size += size
    return root


def find_series(node: Node, min_members: int = 2) -> list[Series]:
    """The series among a module's children."""
    by_prefix: dict[str, list[tuple[int, Node]]] = {}
    for name, child in node.children.items():
        if match := _NUMBERED.fullmatch(name):
            by_prefix.setdefault(match[1], []).append((int(match[2]), child))
    return [
        Series(node, prefix, [child for _, child in sorted(numbered, key=lambda item: item[0])])
        for prefix, numbered in by_prefix.items()
        if len(numbered) >= min_members
    ]


def find_outermost_series(root: Node) -> list[Series]:
    """Every series of modules that is not inside another one.

    Of modules that contain others; where there is no such series, of single layers in a `ModuleList`.
    """
    return list(_find_outermost(root, of_blocks=True)) or list(_find_outermost(root, of_blocks=False))


def _find_outermost(node: Node, *, of_blocks: bool) -> Iterator[Series]:
    series_here = (series for series in find_series(node) if not series.is_parallel)
    found = [series for series in series_here if (series.is_composite if of_blocks else series.parent.is_list)]
    yield from found
    inside = {id(member) for series in found for member in series.members}
    for child in node.children.values():
        if id(child) not in inside:
            yield from _find_outermost(child, of_blocks=of_blocks)


def _relative_names(node: Node) -> set[str]:
    """The paths of the modules in it, and of itself."""
    names = {""}
    for name, child in node.children.items():
        names |= {f"{name}.{below}" for below in _relative_names(child)}
    return names
