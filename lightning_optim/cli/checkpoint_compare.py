"""The difference of two optimizers in checkpoints, with parameters matched by name whatever their groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..telemetry.state_leaves import state_leaves
from .checkpoint_measure import STEP, describe_value, difference, is_bitwise_equal, norm
from .checkpoint_reader import SavedGroup, SavedOptimizer

MISSING = "missing"
NamePair = tuple[tuple[str, ...], tuple[str, ...]]
_Leaves = dict[str, Tensor | float]


@dataclass(frozen=True, kw_only=True)
class HyperparameterChange:
    """A hyperparameter that differs between a group and its counterpart in the other file."""

    group: str
    key: str
    first: Any
    """Its value in the first file; `MISSING` where it has none."""
    second: Any


@dataclass(frozen=True, kw_only=True)
class MovedParameters:
    """Parameters whose group has another name in the other file."""

    first: str
    second: str
    num_tensors: int


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A value in the state that has another dtype or shape in the other file, or is missing there."""

    buffer: str
    first: str
    second: str
    params: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GroupDifference:
    """How much the states of the parameters in a group of the first file differ from those in the second."""

    group: str
    num_equal: int
    """The values that are equal bit by bit, numbers included."""
    num_differing: int
    step: tuple[float | None, float | None] | None
    """The largest step count in each file; None if they are the same."""
    largest: float | None
    """The largest absolute difference in anything but `step`; None if nothing that can be compared differs."""
    where: str
    """The parameter and buffer of the largest difference."""
    relative: float | None
    """The norm of the difference over the norm of the first."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of two optimizers."""

    keys: tuple[str, str]
    by_name: bool
    """Whether parameters were matched by name; by position if a file has no names."""
    groups_only: NamePair
    """The names of groups that only one file has."""
    params_only: NamePair
    """The parameters that only one file has."""
    hyperparameters: tuple[HyperparameterChange, ...]
    moved: tuple[MovedParameters, ...]
    mismatches: tuple[Mismatch, ...]
    groups: tuple[GroupDifference, ...]

    @property
    def num_equal(self) -> int:
        """The values in the state that are equal bit by bit."""
        return sum(group.num_equal for group in self.groups)

    @property
    def is_identical(self) -> bool:
        """Whether there is no difference at all."""
        differences = (*self.groups_only, *self.params_only, self.hyperparameters, self.moved, self.mismatches)
        return not any(differences) and not any(group.num_differing for group in self.groups)


def pair_optimizers(
    first: tuple[SavedOptimizer, ...], second: tuple[SavedOptimizer, ...]
) -> Iterator[tuple[SavedOptimizer | None, SavedOptimizer | None]]:
    """Pairs of optimizers from two files: by key if both have the same keys, else by position."""
    if {saved.key for saved in first} == {saved.key for saved in second}:
        by_key = {saved.key: saved for saved in second}
        yield from ((saved, by_key[saved.key]) for saved in first)
        return
    for index in range(max(len(first), len(second))):
        yield first[index] if index < len(first) else None, second[index] if index < len(second) else None


def compare(first: SavedOptimizer, second: SavedOptimizer) -> Comparison:
    """The difference of two optimizers.

    Args:
        first: from `read_checkpoint`; its groups are the rows.
        second: the one to compare it with.

    Examples:
        >>> import torch
        >>> from lightning_optim.cli.checkpoint_reader import SavedGroup, SavedOptimizer
        >>> def saved(lr):
        ...     group = SavedGroup(name="default", params=("w",), hyperparameters={"lr": lr})
        ...     state = {"w": {"m": torch.ones(2)}}
        ...     return SavedOptimizer(key="optimizer", groups=(group,), state=state, has_names=True)
        >>> found = compare(saved(0.1), saved(0.2))
        >>> found.num_equal, found.hyperparameters
        (1, (HyperparameterChange(group='default', key='lr', first=0.1, second=0.2),))
    """
    by_name = first.has_names and second.has_names
    if not by_name:
        first, second = first.by_position(), second.by_position()
    first_group_of, second_group_of = (
        {name: group.name for group in saved.groups for name in group.params} for saved in (first, second)
    )
    shared = [name for name in first_group_of if name in second_group_of]
    moved = Counter(
        (first_group_of[name], second_group_of[name])
        for name in shared
        if first_group_of[name] != second_group_of[name]
    )
    return Comparison(
        keys=(first.key, second.key),
        by_name=by_name,
        groups_only=_unshared_names(*({group.name: group for group in saved.groups} for saved in (first, second))),
        params_only=_unshared_names(first_group_of, second_group_of),
        hyperparameters=tuple(
            change
            for group in first.groups
            if (other := _find_counterpart(group, second))
            for change in _compare_hyperparameters(group, other)
        ),
        moved=tuple(MovedParameters(first=old, second=new, num_tensors=count) for (old, new), count in moved.items()),
        mismatches=tuple(_find_mismatches(first, second, shared)),
        groups=tuple(
            _compare_states(
                group.name,
                {
                    name: (_leaves(first, name), _leaves(second, name))
                    for name in group.params
                    if name in second_group_of
                },
            )
            for group in first.groups
        ),
    )


def _unshared_names(first: Mapping[str, Any], second: Mapping[str, Any]) -> NamePair:
    return tuple(name for name in first if name not in second), tuple(name for name in second if name not in first)


def _find_counterpart(group: SavedGroup, other: SavedOptimizer) -> SavedGroup | None:
    """The group of the same name in the other file, else the one with the same parameters."""
    for candidate in other.groups:
        if candidate.name == group.name:
            return candidate
    return next((candidate for candidate in other.groups if set(candidate.params) == set(group.params)), None)


def _compare_hyperparameters(first: SavedGroup, second: SavedGroup) -> Iterator[HyperparameterChange]:
    for key, old, new in _find_changes(first.hyperparameters, second.hyperparameters):
        yield HyperparameterChange(group=first.name, key=key, first=old, second=new)


def _find_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """`(key, first value, second value)` of what differs; in dicts that both have, key by key."""
    for key in dict.fromkeys((*first, *second)):
        first_value, second_value = first.get(key), second.get(key)
        if isinstance(first_value, dict) and isinstance(second_value, dict):
            yield from ((f"{key}.{subkey}", old, new) for subkey, old, new in _find_changes(first_value, second_value))
            continue
        # As text, so that a tuple equals a list, and NaN equals NaN.
        if format_exactly(first.get(key, MISSING)) != format_exactly(second.get(key, MISSING)):
            yield str(key), first.get(key, MISSING), second.get(key, MISSING)


def format_exactly(value: Any) -> str:
    """A hyperparameter in full precision; a tuple like a list, a tensor as its value, a dict by its keys."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(format_exactly, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    return str(value)


def _leaves(saved: SavedOptimizer, name: str) -> _Leaves:
    return dict(state_leaves(saved.state.get(name, {})))


def _find_mismatches(first: SavedOptimizer, second: SavedOptimizer, names: list[str]) -> Iterator[Mismatch]:
    params: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        first_leaves, second_leaves = _leaves(first, name), _leaves(second, name)
        for key in dict.fromkeys((*first_leaves, *second_leaves)):
            old, new = describe_value(first_leaves.get(key)), describe_value(second_leaves.get(key))
            if old != new:
                params.setdefault((key, old, new), []).append(name)
    for (key, old, new), of_mismatch in params.items():
        yield Mismatch(buffer=key, first=old, second=new, params=tuple(of_mismatch))


def _compare_states(group: str, states: Mapping[str, tuple[_Leaves, _Leaves]]) -> GroupDifference:
    num_equal = num_differing = 0
    largest, where = None, ""
    difference_norms, first_norms = list[float](), list[float]()
    steps = list[float](), list[float]()
    for name, (first_leaves, second_leaves) in states.items():
        for key in dict.fromkeys((*first_leaves, *second_leaves)):
            old, new = first_leaves.get(key), second_leaves.get(key)
            for side_steps, value in zip(steps, (old, new), strict=True):
                if key == STEP and value is not None:
                    side_steps.append(float(value))
            if old is None or new is None:
                num_differing += 1
                continue
            is_equal = is_bitwise_equal(old, new)
            num_equal, num_differing = num_equal + is_equal, num_differing + (not is_equal)
            if key == STEP or _shape(old) != _shape(new):
                continue
            distance, distance_norm = (0.0, 0.0) if is_equal else difference(old, new)
            difference_norms.append(distance_norm)
            first_norms.append(norm(old) if isinstance(old, Tensor) else abs(old))
            if not is_equal and (largest is None or _nan_as_inf(distance) > _nan_as_inf(largest)):
                largest, where = distance, f"{name}: {key}"
    last_steps = max(steps[0], default=None), max(steps[1], default=None)
    return GroupDifference(
        group=group,
        num_equal=num_equal,
        num_differing=num_differing,
        step=None if last_steps[0] == last_steps[1] else last_steps,
        largest=largest,
        where=where,
        relative=None if largest is None else _ratio(math.hypot(*difference_norms), math.hypot(*first_norms)),
    )


def _shape(value: Tensor | float) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _nan_as_inf(value: float) -> float:
    """For comparing differences: NaN is the largest."""
    return math.inf if math.isnan(value) else value


def _ratio(numerator: float, denominator: float) -> float:
    """The quotient; 0/0 is 0."""
    return numerator / denominator if denominator else (math.inf if numerator else 0.0)
