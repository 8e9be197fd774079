"""Match saved param groups to current ones by parameter name, so that state survives an edited config.

torch matches by position: after a rule is added, renamed or split, a state would go to another parameter
(pytorch#1489).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError, format_names
from .merge_values import ParamGroup, has_moved, merge_values
from .state_checks import check_shapes
from .wrappers import strip_wrapper_prefixes


@dataclass(frozen=True)
class GroupMatch:
    """A current group and where its parameters are in a state dict."""

    current: ParamGroup
    sources: Sequence[ParamGroup]
    """The saved groups that they were in."""
    state_keys: Sequence[Any]
    """By parameter, in the order of the current group: its key in the state dict's `state`."""

    @property
    def moved(self) -> bool:
        """Whether the group's lr can only come from its schedule, and not from the saved groups."""
        return bool(self.sources) and has_moved(self.current, self.sources)


def remap_state_dict(current: Sequence[ParamGroup], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict in the current groups: each parameter's state by its name, the groups' values by `merge_values`.

    Args:
        current: `optimizer.param_groups`.
        state_dict: the result of `optimizer.state_dict()`.

    Raises:
        ConfigError: as `match_groups`.
    """
    groups = [
        {**merge_values(match.current, match.sources), "params": list(match.state_keys)}
        for match in match_groups(current, state_dict)
    ]
    return {**state_dict, "param_groups": groups}


def match_groups(current: Sequence[ParamGroup], state_dict: Mapping[str, Any]) -> list[GroupMatch]:
    """Where the parameters of each current group are in a state dict.

    Parameters are matched by name. Where either side has no names they are matched by position, and then both sides
    must have the same number of groups.

    Args:
        current: `optimizer.param_groups`.
        state_dict: the result of `optimizer.state_dict()`.

    Raises:
        ConfigError: a parameter is missing from the state dict or from the current groups, or a state's tensor has
            another shape.
    """
    saved = state_dict["param_groups"]
    names = [name for group in current for name in (group.get("param_names") or ())]
    if saved and all(isinstance(param, str) for group in saved for param in group["params"]):
        return _match_dcp(current, saved)
    if not names or not all(group.get("param_names") for group in saved):
        return _match_by_position(current, state_dict)
    by_name = _index_by_name(saved, names)
    _check_same_names(names, by_name)
    return [_match_group(group, by_name, state_dict["state"]) for group in current]


def check_same_groups(current: Sequence[ParamGroup], saved: Sequence[ParamGroup]) -> None:
    """Check that a checkpoint's param groups are the current ones, where loading can only go by position.

    Args:
        current: param groups, with `name` and `param_names` where they have them.
        saved: `optimizer.state_dict()["param_groups"]`.

    Raises:
        ConfigError: there are other groups, or other parameters in them.
    """
    advice = "Use the groups and stages that the checkpoint was saved with."
    if len(current) != len(saved):
        here, there = (", ".join(str(group.get("name", "unnamed")) for group in groups) for groups in (current, saved))
        raise ConfigError(
            f"the checkpoint has {len(saved)} param groups ({there}), this run {len(current)} ({here}). {advice}"
        )
    for ours, theirs in zip(current, saved, strict=True):
        our_names, their_names = tuple(ours.get("param_names") or ()), tuple(theirs.get("param_names") or ())
        if our_names and their_names and our_names != their_names:
            different = sorted(set(our_names) ^ set(their_names)) or list(our_names)
            raise ConfigError(
                f"param group '{ours.get('name')}' of this run is '{theirs.get('name')}' in the checkpoint, "
                f"and they differ in {len(different)} parameters: {format_names(different, 3)}. {advice}"
            )
        sizes = [len(group["params"]) for group in (ours, theirs) if "params" in group]
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"param group '{ours.get('name')}' has {sizes[0]} parameters in this run and {sizes[1]} in the "
                f"checkpoint, which has no parameter names. {advice}"
            )


def _match_by_position(current: Sequence[ParamGroup], state_dict: Mapping[str, Any]) -> list[GroupMatch]:
    saved = state_dict["param_groups"]
    check_same_groups(current, saved)
    for group, source in zip(current, saved, strict=True):
        names = group.get("param_names") or [f"parameter {key}" for key in source["params"]]
        for name, param, key in zip(names, group.get("params", ()), source["params"], strict=False):
            check_shapes(name, param, state_dict["state"].get(key) or {})
    return [GroupMatch(group, [source], source["params"]) for group, source in zip(current, saved, strict=True)]


def _match_dcp(current: Sequence[ParamGroup], saved: Sequence[ParamGroup]) -> list[GroupMatch]:
    """Match groups from torch.distributed.checkpoint, which has already put each parameter into its current group.

    It gives the values of a saved group to one current group only, but with the names of all its parameters.
    """
    by_name = {name: group for group in saved for name in group.get("param_names") or ()}
    matches = []
    for group, source in zip(current, saved, strict=True):
        named = [by_name[name] for name in group.get("param_names") or () if name in by_name]
        sources = _deduplicate(named) or ([source] if "lr" in source else [])
        matches.append(GroupMatch(group, sources, source["params"]))
    return matches


def _index_by_name(saved: Sequence[ParamGroup], known: Sequence[str]) -> dict[str, tuple[Any, ParamGroup]]:
    """By clean name: the parameter's key in the state dict, and its saved group."""
    for group in saved:
        if len(group["param_names"]) != len(group["params"]):
            raise ConfigError(
                f"the checkpoint's param group '{group.get('name', 'unnamed')}' has {len(group['params'])} parameters "
                f"and {len(group['param_names'])} names in param_names. Give each parameter one name"
            )
    names = [name for group in saved for name in group["param_names"]]
    if duplicates := sorted(name for name, number in Counter(names).items() if number > 1):
        raise ConfigError(
            f"the checkpoint's param_names give several parameters one name: {format_names(duplicates, 3)}. Give each "
            "parameter its own"
        )
    if not set(known) & set(names):  # names saved by another program may have wrapper prefixes
        names = strip_wrapper_prefixes(names)
    entries = [(key, group) for group in saved for key in group["params"]]
    return dict(zip(names, entries, strict=True))


def _check_same_names(current: Sequence[str], saved: Mapping[str, Any]) -> None:
    known = set(current)
    missing = [name for name in current if name not in saved]
    unknown = [name for name in saved if name not in known]
    advice = "Use the stages (StagedUnfreeze), the model and the frozen rules that it was saved with"
    if missing:
        extra = f", and has {format_names(unknown, 3)}, which this run's does not have" if unknown else ""
        raise ConfigError(
            f"the checkpoint's optimizer has no state for {len(missing)} parameters of this run: "
            f"{format_names(missing, 3)}{extra}. {advice}"
        )
    if unknown:
        raise ConfigError(
            f"the checkpoint's optimizer has {len(unknown)} parameters that this run's does not have: "
            f"{format_names(unknown, 3)}. {advice}"
        )


def _match_group(
    current: ParamGroup, by_name: Mapping[str, tuple[Any, ParamGroup]], states: Mapping[Any, Any]
) -> GroupMatch:
    entries = [by_name[name] for name in current["param_names"]]
    for name, param, (key, _) in zip(current["param_names"], current["params"], entries, strict=True):
        check_shapes(name, param, states.get(key) or {})
    return GroupMatch(current, _deduplicate(group for _, group in entries), [key for key, _ in entries])


def _deduplicate(groups: Iterable[ParamGroup]) -> list[ParamGroup]:
    return list({id(group): group for group in groups}.values())
