"""The rows of a picture of depth: which param groups belong to which layer, from the model's input to its output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from ..core.errors import ConfigError
from ..groups.auto_layers import find_auto_layers
from ..groups.group import Group
from ..groups.index import ParameterIndex
from ..groups.parameters import read_parameters
from ..groups.plan import Plan

HEAD = "head"
"""The row of all groups after the last layer."""
# Names of rules and stages begin with a letter, so numbers in the name of a group are those of its layer.
_LAYER_IN_NAME = re.compile(r"(?:.*\.)?(?:\d+(?=\.|$)|stem(?=\.|$))")


@dataclass(frozen=True, kw_only=True)
class DepthRows:
    """The layers from input to output; a layer may have several groups, such as `depth.3` and `depth.3.no_decay`."""

    labels: tuple[str, ...]
    row_of: Mapping[str, int]
    """By group: its row. Groups whose parameters are in several layers have none."""


def find_depth_rows(plan: Plan, module: nn.Module) -> DepthRows | None:
    """The layers that have groups of their own; None if there are fewer than two.

    Args:
        plan: all groups of an optimizer, those too that are still frozen.
        module: the model. Its layers are those of `layers: auto`; where each group is in several of these, or there are
            none, the numbers in the names of the groups tell.
    """
    return _rows_by_auto_layers(plan, module) or _rows_by_name(plan)


def _rows_by_auto_layers(plan: Plan, module: nn.Module) -> DepthRows | None:
    index = ParameterIndex(read_parameters(module))
    try:
        layers = find_auto_layers(index, "layers")
    except ConfigError:
        return None
    by_name: dict[str, tuple[str, int, str]] = {}
    towers: dict[str, None] = {}
    for position, name in enumerate(index.names):
        if layer := layers.layer_of.get(position) or layers.stem_of.get(position):
            tower = layer.label.rpartition(".")[0]
            towers[tower] = None
            by_name[name] = (tower, -layer.depth, layer.label)
    orders = {tower: order for order, tower in enumerate(towers)}
    # After the layers of all towers, in model order.
    keys: dict[str, tuple[int, int, str]] = {}
    for group in plan.groups:
        found = {by_name.get(name) for name in group.params}
        if len(found) == 1:
            layer_key = found.pop()
            keys[group.name] = (orders[layer_key[0]], *layer_key[1:]) if layer_key else (len(orders), 0, HEAD)
    return _sort_rows(keys)


def _rows_by_name(plan: Plan) -> DepthRows | None:
    order_of = {name: order for order, name in enumerate(plan.tensors)}
    first: dict[str, int] = {}
    labels: dict[str, str] = {}
    for group in plan.groups:
        if group.params and (label := _find_label(group)):
            labels[group.name] = label
            position = min(order_of[name] for name in group.params)
            first[label] = min(position, first.get(label, position))
    return _sort_rows({group: (first[label], 0, label) for group, label in labels.items()})


def _find_label(group: Group) -> str | None:
    found = _LAYER_IN_NAME.match(group.name)
    return found[0] if found else None


def _sort_rows(keys: Mapping[str, tuple[int, int, str]]) -> DepthRows | None:
    """Rows in the order of the keys `(tower or position, -depth, label)` of their groups."""
    rows = sorted(set(keys.values()))
    if len(_without_head(rows)) < 2:
        return None
    row_of = {group: rows.index(key) for group, key in keys.items()}
    return DepthRows(labels=tuple(label for _, _, label in rows), row_of=row_of)


def _without_head(rows: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    return [row for row in rows if row[2] != HEAD]
