"""The layers of timm's models, by their method `group_matcher`, numbered as timm numbers them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from .index import ParameterIndex
from .layer_sequence import LayerSequence
from .layers import STEM

_METHOD = "group_matcher"
# What matches nothing comes last: the head.
_UNMATCHED = (float("inf"),)
# timm's suffix for what belongs to the layer before: the norm after the last block.
_PREVIOUS = 99999


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """A module with a `group_matcher`."""

    sequence: LayerSequence
    """Its layers."""
    occurrences: frozenset[int]
    """Everything in it, the head included."""


def find_timm_models(index: ParameterIndex) -> list[TimmModel]:
    """Every outermost module that has a `group_matcher`."""
    return [_read_model(path, module, index) for path, module in _find_models(index.modules)]


def _read_model(path: str, module: nn.Module, index: ParameterIndex) -> TimmModel:
    prefix = f"{path}." if path else ""
    names = {o: name.removeprefix(prefix) for o, name in enumerate(index.names) if name.startswith(prefix)}
    matcher = module.group_matcher(coarse=False)  # type: ignore[operator]
    keys = {occurrence: key for occurrence, key in _find_sort_keys(names, matcher).items() if key != _UNMATCHED}
    number_of = _number_layers(keys.values())
    by_number: list[list[int]] = [[] for _ in set(number_of.values())]
    for occurrence, key in keys.items():
        by_number[number_of[key]].append(occurrence)
    # In a mapping, the stem is the entry of that name, which comes first.
    has_stem = (
        isinstance(matcher, Mapping) and next(iter(matcher), None) == STEM and (0.0,) in {k[:1] for k in number_of}
    )
    stem = by_number.pop(0) if has_stem else []
    sequence = LayerSequence(
        path=path,
        layers={str(number): occurrences for number, occurrences in enumerate(by_number)},
        stem=stem,
        has_head=len(keys) < len(index.names),
    )
    return TimmModel(sequence=sequence, occurrences=frozenset(names))


def _find_models(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    outer: list[str] = []
    for path, module in modules.items():
        if callable(getattr(type(module), _METHOD, None)) and not any(_is_inside(path, other) for other in outer):
            outer.append(path)
            yield path, module


def _is_inside(path: str, other: str) -> bool:
    return not other or path == other or path.startswith(f"{other}.")


def _find_sort_keys(names: Mapping[int, str], matcher: Any) -> dict[int, tuple[float, ...]]:
    """By occurrence: what its layer is sorted by, as in `timm.models._manipulate.group_with_matcher`."""
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


def _number_layers(keys: Iterable[tuple[float, ...]]) -> dict[tuple[float, ...], int]:
    """By sort key: the number of the layer, from 0."""
    number_of: dict[tuple[float, ...], int] = {}
    number = -1
    for key in sorted(set(keys)):
        number += number < 0 or key[-1] != _PREVIOUS
        number_of[key] = number
    return number_of
