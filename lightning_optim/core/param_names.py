"""Names for the parameters and param groups that join an optimizer (no torch)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

_NAMES = "param_names"


@contextmanager
def joining(param_group: Mapping[str, Any], groups: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A copy of a param group that is about to join, with names if the others have some, and the reverse.

    torch refuses a group whose parameters have names beside one whose parameters have none. Names by position say what
    they are: `param_groups.2.0`. Where other groups have a `name`, a new one without it gets `group2`.

    Args:
        param_group: has a tensor, tensors, or `(name, parameter)` pairs under `params`.
        groups: the optimizer's groups. Those without names get some by position if the new one has names, and lose them
            again if the block raises.
    """
    group = _with_list(param_group)
    unnamed = [index for index, other in enumerate(groups) if _NAMES not in other]
    if groups and not unnamed and _NAMES not in group and not _names_in_pairs(group):
        group[_NAMES] = position_names([*groups, group], len(groups), len(group["params"]))
    if "name" not in group and any("name" in other for other in groups):
        group["name"] = _unused_name(groups, len(groups))
    if _NAMES not in group and not _names_in_pairs(group):
        unnamed = []
    for index in unnamed:
        groups[index][_NAMES] = position_names([*groups, group], index, len(groups[index]["params"]))
    try:
        yield group
    except BaseException:
        for index in unnamed:
            del groups[index][_NAMES]
        raise


def position_names(groups: Sequence[Mapping[str, Any]], index: int, num_params: int) -> list[str]:
    """Names by position for the parameters of group `index`, none of which a group has already."""
    used = {name for group in groups for name in (*(group.get(_NAMES) or ()), *_names_in_pairs(group))}
    # A group may have left since its number was used, so the next free one is taken.
    candidates = ([f"param_groups.{number}.{i}" for i in range(num_params)] for number in count(index))
    return next(names for names in candidates if used.isdisjoint(names))


def _with_list(param_group: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a param group, with a list in place of one tensor or a generator; torch refuses a set itself."""
    params = param_group["params"]
    if hasattr(params, "requires_grad"):
        params = [params]
    return {**param_group, "params": params if isinstance(params, set) else list(params)}


def _names_in_pairs(group: Mapping[str, Any]) -> list[str]:
    params = group["params"]
    return [param[0] for param in params if isinstance(param, tuple)] if isinstance(params, list) else []


def _unused_name(groups: Sequence[Mapping[str, Any]], number: int) -> str:
    used = {group.get("name") for group in groups}
    return next(name for name in (f"group{n}" for n in count(number)) if name not in used)
