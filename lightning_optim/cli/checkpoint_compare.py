"""Two optimizers of two checkpoints, compared by the names of their parameters, however they are grouped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..telemetry.state_leaves import leaves
from .checkpoint_measure import STEP, describe, difference, norm, same
from .checkpoint_reader import SavedGroup, SavedOptimizer

Pair = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A hyperparameter that a group of this name has otherwise in the other file."""

    group: str
    key: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Move:
    """Parameters that are in a group of another name in the other file."""

    first: str
    second: str
    num_tensors: int


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A part of the state that is of another dtype or shape in the other file, or is not there."""

    buffer: str
    first: str
    second: str
    params: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far the states of the parameters in a group of the first file are from the second file's."""

    group: str
    num_equal: int
    """State tensors, to the bit; a number counts as one."""
    num_differing: int
    step: tuple[float | None, float | None] | None
    """The largest of each file, where they differ."""
    largest: float | None
    """The largest absolute difference in anything but `step`; None where nothing could be subtracted."""
    where: str
    """The parameter that it stands in, and the buffer."""
    relative: float | None
    """The norm of the difference over the norm of the first."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of two optimizers."""

    keys: tuple[str, str]
    by_name: bool
    """Whether parameters were matched by name; by place where one file has no names."""
    groups_only: Pair
    """Names of groups that are in one alone."""
    params_only: Pair
    """Parameters that are in one alone."""
    settings: tuple[Setting, ...]
    moves: tuple[Move, ...]
    mismatches: tuple[Mismatch, ...]
    rows: tuple[Row, ...]

    @property
    def num_equal(self) -> int:
        """State tensors that are equal to the bit."""
        return sum(row.num_equal for row in self.rows)

    @property
    def same(self) -> bool:
        """Whether there is no difference at all."""
        found = (*self.groups_only, *self.params_only, self.settings, self.moves, self.mismatches)
        return not any(found) and not any(row.num_differing for row in self.rows)


def pair(
    first: tuple[SavedOptimizer, ...], second: tuple[SavedOptimizer, ...]
) -> Iterator[tuple[SavedOptimizer | None, SavedOptimizer | None]]:
    """The optimizers of two files side by side: by key where both have the same keys, else in their order."""
    if {saved.key for saved in first} == {saved.key for saved in second}:
        by_key = {saved.key: saved for saved in second}
        yield from ((saved, by_key[saved.key]) for saved in first)
        return
    for index in range(max(len(first), len(second))):
        yield first[index] if index < len(first) else None, second[index] if index < len(second) else None


def compare(first: SavedOptimizer, second: SavedOptimizer) -> Comparison:
    """The difference of two optimizers that were read.

    Args:
        first: its groups are the rows.
        second: what it is compared with.

    Example:
        >>> import torch
        >>> from lightning_optim.cli.checkpoint_reader import SavedGroup, SavedOptimizer
        >>> def saved(lr):
        ...     group = SavedGroup(name="default", params=("w",), hyperparameters={"lr": lr})
        ...     return SavedOptimizer(key="optimizer", groups=(group,), state={"w": {"m": torch.ones(2)}}, named=True)
        >>> found = compare(saved(0.1), saved(0.2))
        >>> found.num_equal, found.settings
        (1, (Setting(group='default', key='lr', first='0.1', second='0.2'),))
    """
    by_name = first.named and second.named
    if not by_name:
        first, second = first.nameless(), second.nameless()
    here, there = ({name: group.name for group in saved.groups for name in group.params} for saved in (first, second))
    moved = Counter((here[name], there[name]) for name in here if name in there and here[name] != there[name])
    groups, others = ({group.name: group for group in saved.groups} for saved in (first, second))
    return Comparison(
        keys=(first.key, second.key),
        by_name=by_name,
        groups_only=_only(groups, others),
        params_only=_only(here, there),
        settings=tuple(
            setting
            for group in first.groups
            if (other := _partner(group, second))
            for setting in _settings(group, other)
        ),
        moves=tuple(Move(first=old, second=new, num_tensors=count) for (old, new), count in moved.items()),
        mismatches=tuple(_mismatches(first, second, [name for name in here if name in there])),
        rows=tuple(
            _row(
                group.name,
                {name: (_leaves(first, name), _leaves(second, name)) for name in group.params if name in there},
            )
            for group in first.groups
        ),
    )


def _only(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pair:
    return tuple(name for name in first if name not in second), tuple(name for name in second if name not in first)


def _partner(group: SavedGroup, other: SavedOptimizer) -> SavedGroup | None:
    """The group of that name in the other file, else the one that has the same parameters."""
    for candidate in other.groups:
        if candidate.name == group.name:
            return candidate
    return next((each for each in other.groups if set(each.params) == set(group.params)), None)


def _settings(first: SavedGroup, second: SavedGroup) -> Iterator[Setting]:
    for key, ours, theirs in _unlike(first.hyperparameters, second.hyperparameters):
        yield Setting(group=first.name, key=key, first=ours, second=theirs)


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """`(key, in the first, in the second)` of what differs; of dicts in both, the keys in them."""
    for key in dict.fromkeys((*first, *second)):
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from ((f"{key}.{below}", old, new) for below, old, new in _unlike(ours, theirs))
            continue
        old, new = (_said(side[key]) if key in side else "nothing" for side in (first, second))
        if old != new:
            yield str(key), old, new


def _said(value: Any) -> str:
    """A hyperparameter as one reads it: exact, a list like a tuple, a tensor as its value, a dict by its keys."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    return str(value)


def _leaves(saved: SavedOptimizer, name: str) -> dict[str, Tensor | float]:
    return dict(leaves(saved.state.get(name, {})))


def _mismatches(first: SavedOptimizer, second: SavedOptimizer, names: list[str]) -> Iterator[Mismatch]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        ours, theirs = _leaves(first, name), _leaves(second, name)
        for key in dict.fromkeys((*ours, *theirs)):
            kinds = describe(ours.get(key)), describe(theirs.get(key))
            if kinds[0] != kinds[1]:
                found.setdefault((key, *kinds), []).append(name)
    for (key, old, new), params in found.items():
        yield Mismatch(buffer=key, first=old, second=new, params=tuple(params))


def _row(group: str, states: Mapping[str, tuple[dict[str, Tensor | float], dict[str, Tensor | float]]]) -> Row:
    num_equal = num_differing = 0
    largest, where = None, ""
    apart, whole = list[float](), list[float]()
    steps = list[float](), list[float]()
    for name, (ours, theirs) in states.items():
        for key in dict.fromkeys((*ours, *theirs)):
            old, new = ours.get(key), theirs.get(key)
            for side, value in zip(steps, (old, new), strict=True):
                if key == STEP and value is not None:
                    side.append(float(value))
            if old is None or new is None:
                num_differing += 1
                continue
            equal = same(old, new)
            num_equal, num_differing = num_equal + equal, num_differing + (not equal)
            if key == STEP or _shape(old) != _shape(new):
                continue
            at, length = (0.0, 0.0) if equal else difference(old, new)
            apart.append(length)
            whole.append(norm(old) if isinstance(old, Tensor) else abs(old))
            if not equal and (largest is None or _rank(at) > _rank(largest)):
                largest, where = at, f"{name}: {key}"
    last = max(steps[0], default=None), max(steps[1], default=None)
    return Row(
        group=group,
        num_equal=num_equal,
        num_differing=num_differing,
        step=None if last[0] == last[1] else last,
        largest=largest,
        where=where,
        relative=_ratio(math.hypot(*apart), math.hypot(*whole)) if largest is not None else None,
    )


def _shape(value: Tensor | float) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _rank(value: float) -> float:
    """NaN is the largest difference of all."""
    return math.inf if math.isnan(value) else value


def _ratio(apart: float, whole: float) -> float:
    return apart / whole if whole else (math.inf if apart else 0.0)
