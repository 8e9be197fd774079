"""The layers of timm's models, by their method `group_matcher`, numbered as timm numbers them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
        keys = {occurrence: key for occurrence, key in _sort_keys(inside, matcher).items() if key != _UNMATCHED}
        others |= inside.keys() - keys.keys()
        rank_of = _rank(keys.values())
        # As in timm, the last layer has the whole lr if nothing comes after it.
        num = max(rank_of.values(), default=0) + (len(keys) < len(index.names))
        stem_key = (0.0,) if isinstance(matcher, Mapping) and next(iter(matcher), None) == STEM else None
        has_stem = any(key[:1] == stem_key for key in rank_of)
        label = [path.rpartition(".")[2]] if len(found) > 1 else []
        for occurrence, key in keys.items():
            rank = rank_of[key]
            if has_stem and rank == 0:
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


def _sort_keys(names: Mapping[int, str], matcher: Any) -> dict[int, tuple[float, ...]]:
    """By occurrence: its place in the order, as `timm.models._manipulate.group_with_matcher` computes it."""
    if callable(matcher):
        keys = {occurrence: matcher(name) for occurrence, name in names.items()}
        return {occurrence: tuple(key) if isinstance(key, Iterable) else (key,) for occurrence, key in keys.items()}
    compiled: list[tuple[re.Pattern[str], int, tuple[float, ...]]] = []
    for ordinal, spec in enumerate(matcher.values()):
        entries = spec if isinstance(spec, (tuple, list)) else [(spec, None)]
        compiled += [(re.compile(pattern), ordinal, suffix or ()) for pattern, suffix in entries if pattern is not None]

    def sort_key(name: str) -> tuple[float, ...]:
        for pattern, ordinal, suffix in compiled:
            if match := pattern.match(name):
                numbers = (group for group in match.groups() if group is not None)
                return tuple(map(float, chain([ordinal], numbers, suffix)))
        return _UNMATCHED

    return {occurrence: sort_key(name) for occurrence, name in names.items()}


def _rank(keys: Iterable[tuple[float, ...]]) -> dict[tuple[float, ...], int]:
    """The number of each layer, from 0."""
    rank_of: dict[tuple[float, ...], int] = {}
    rank = -1
    for key in sorted(set(keys)):
        rank += rank < 0 or key[-1] != _PREVIOUS
        rank_of[key] = rank
    return rank_of
