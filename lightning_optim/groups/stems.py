"""`find_stem`: what comes before the layers of a tower: embeddings, the first convolution, the norm after them."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from .index import ParameterIndex
from .module_tree import Node, Series

# A norm beside the layers is the last one, unless its name says otherwise: `pre_norm`, a ResNet's `bn1`.
_FIRST_NORM = re.compile(r"pre|emb|in(put)?(_|$)|\d$", re.IGNORECASE)
# Of a direct attribute of the model. Further in, `fc` may be a projection of the input, and `resnet_head` the stem.
_HEAD = re.compile(r"head|classif|^fc", re.IGNORECASE)


def find_stem(
    series: Series, others: Sequence[Series], in_timm: Set[int], root: Node, index: ParameterIndex
) -> set[int]:
    """What comes before the first layer, in the largest module around the series that has no other tower in it.

    Of the modules around several towers, the first tower also has every embedding that comes before it, and what is
    beside its layers.

    Args:
        series: the layers.
        others: those of the other towers.
        in_timm: the occurrences in models of timm, which are towers too.
        root: the model.
        index: its parameters.
    """
    before = _find_before(series, root, index)
    in_others = {occurrence for other in others for occurrence in other.occurrences}
    around = _find_modules_around(series, root)
    holder = around[-1]

    def has_other_tower(node: Node) -> bool:
        # A model of timm in the holder leads up to its layers; in a module further out, it is another tower.
        in_towers = in_others if node is holder else in_others | in_timm
        return not in_towers.isdisjoint(node.occurrences)

    scopes = [node for node in around if not has_other_tower(node)]
    # Most LightningModules hold the model, beside losses and metrics. One is the model itself if nothing in a smaller
    # module comes before the layers.
    while len(scopes) > 1 and _is_lightning_module(scopes[0], index) and not before.isdisjoint(scopes[1].occurrences):
        scopes.pop(0)
    stem = before.intersection(scopes[0].occurrences) if scopes else set()
    orders = [occurrence.order for occurrence in index.occurrences]
    if min(orders[o] for o in series.occurrences) < min((orders[o] for o in in_others), default=len(orders)):
        stem |= before & (index.by_kind.get("embedding", set()) | _find_beside(holder, in_others))
    return stem


def _find_before(series: Series, root: Node, index: ParameterIndex) -> set[int]:
    """What the model uses before the first layer, as far as the order of definition and names tell."""
    first = min(index.occurrences[occurrence].order for occurrence in series.occurrences)
    defined_before = (occurrence for occurrence in root.occurrences if index.occurrences[occurrence].order < first)
    return {occurrence for occurrence in defined_before if not _is_output(occurrence, series, index)}


def _find_beside(holder: Node, in_others: Set[int]) -> set[int]:
    """The occurrences in the module that has a series, without its attributes that have other towers in them."""
    others = [child for child in holder.children.values() if not in_others.isdisjoint(child.occurrences)]
    return set(holder.occurrences).difference(*(other.occurrences for other in others))


def _find_modules_around(series: Series, root: Node) -> list[Node]:
    """The modules from the model to the one that has the series, each inside the one before."""
    nodes = [root]
    for segment in filter(None, series.holder.split(".")):
        nodes.append(nodes[-1].children[segment])
    return nodes


def _is_lightning_module(node: Node, index: ParameterIndex) -> bool:
    return any(base.__name__ == "LightningModule" for base in type(index.modules.get(node.path)).__mro__)


def _is_output(occurrence: int, series: Series, index: ParameterIndex) -> bool:
    """Whether it comes after the layers, although the model defines it before them: a final norm, or a head."""
    if occurrence in index.by_kind.get("output", ()):
        return True
    path = index.names[occurrence].split(".")
    is_beside = ".".join(path[:-2]) == series.holder
    if is_beside and occurrence in index.by_kind.get("norm", ()):
        return not _FIRST_NORM.search(path[-2])
    return path[0] != series.pattern.partition(".")[0] and bool(_HEAD.search(path[0]))
