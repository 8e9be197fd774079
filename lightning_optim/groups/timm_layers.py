"""The layers of timm's models, by their method `group_matcher`, numbered as timm numbers them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from torch import nn

from .index import ParameterIndex
from .layers import STEM, Layer

_METHOD = "group_matcher"
# What matches nothing comes last: the head.
_UNMATCHED = (float("inf"),)
# timm's mark for what is counted to the layer before: the norm after the last block.
_PREVIOUS = 99999


@dataclass(frozen=True, kw_only=True)
class TimmLayers:
    """The layers of the models in a model that have a `group_matcher`, by occurrence."""

    layer_of: Mapping[int, Layer] = field(default_factory=dict)
    stem_of: Mapping[int, Layer] = field(default_factory=dict)
    others: frozenset[int] = frozenset()
    """Occurrences in such a model that are in no layer: its head."""


def find_timm_layers(index: ParameterIndex) -> TimmLayers:
    """The layers of every outermost module that has a `group_matcher`."""
    found = list(_find_models(index.modules))
    layer_of: dict[int, Layer] = {}
    stem_of: dict[int, Layer] = {}
    others: set[int] = set()
    for path, module in found:
        prefix = f"{path}." if path else ""
        inside = {o: name.removeprefix(prefix) for o, name in enumerate(index.names) if name.startswith(prefix)}
        matcher = module.group_matcher(coarse=False)  # type: ignore[operator]
        rank_of = _rank(inside, _compile(matcher))
        finite = [rank for rank in rank_of.values() if rank is not None]
        # As in timm, the last layer has the whole lr if there is nothing behind it.
        has_head = len(finite) < len(index.names)
        num = max(finite, default=0) + has_head
        has_stem = isinstance(matcher, Mapping) and next(iter(matcher), None) == STEM and 0 in finite
        label = [path.rpartition(".")[2]] if len(found) > 1 else []
        for occurrence, rank in rank_of.items():
            if rank is None:
                others.add(occurrence)
            elif rank == 0 and has_stem:
                stem_of[occurrence] = Layer(".".join([*label, STEM]), num)
            else:
                layer_of[occurrence] = Layer(".".join([*label, str(rank - has_stem)]), num - rank)
    return TimmLayers(layer_of=layer_of, stem_of=stem_of, others=frozenset(others))


def _find_models(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    outer: list[str] = []
    for path, module in modules.items():
        if callable(getattr(type(module), _METHOD, None)) and not any(_is_inside(path, other) for other in outer):
            outer.append(path)
            yield path, module


def _is_inside(path: str, other: str) -> bool:
    return not other or path == other or path.startswith(f"{other}.")


def _compile(matcher: Any) -> Callable[[str], tuple[float, ...]]:
    """From a name to its sort key, as `timm.models._manipulate.group_with_matcher` makes it."""
    if callable(matcher):
        return lambda name: tuple(key) if isinstance(key := matcher(name), Iterable) else (key,)
    compiled: list[tuple[re.Pattern[str], int, tuple[float, ...] | None]] = []
    for ordinal, spec in enumerate(matcher.values()):
        if spec is not None:
            entries = spec if isinstance(spec, (tuple, list)) else [(spec, None)]
            compiled += [(re.compile(pattern), ordinal, suffix) for pattern, suffix in entries]

    def key_of(name: str) -> tuple[float, ...]:
        for pattern, ordinal, suffix in compiled:
            if match := pattern.match(name):
                return tuple(map(float, chain([ordinal], (g for g in match.groups() if g is not None), suffix or ())))
        return _UNMATCHED

    return key_of


def _rank(names: Mapping[int, str], key_of: Callable[[str], tuple[float, ...]]) -> dict[int, int | None]:
    """By occurrence: the number of its layer, from 0; None where nothing matches."""
    keys = {occurrence: key_of(name) for occurrence, name in names.items()}
    rank_of: dict[tuple[float, ...], int] = {}
    rank = -1
    for key in sorted(set(keys.values())):
        if key != _UNMATCHED:
            rank += rank < 0 or key[-1] != _PREVIOUS
            rank_of[key] = rank
    return {occurrence: rank_of.get(key) for occurrence, key in keys.items()}
