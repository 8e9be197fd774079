"""Loading by name: each parameter's state, and its group's values, through an edited config.

torch loads by place: with a rule added, renamed or split, a state would go to another parameter (pytorch#1489).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..core.errors import ConfigError, format_names
from .merging import ParamGroup, has_moved, merged
from .names import without_leading_wrappers


@dataclass(frozen=True)
class Match:
    """A current group and where its parameters are in a state dict."""

    now: ParamGroup
    sources: Sequence[ParamGroup]
    """The saved groups that they were in."""
    places: Sequence[Any]
    """Under which each one's state is, in the order of the current group."""

    @property
    def moved(self) -> bool:
        """Whether only the schedule can say where on its curve the group is now."""
        return bool(self.sources) and has_moved(self.now, self.sources)


def remap(current: Sequence[ParamGroup], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict in the current groups: each parameter's state by its name, each value by `merged`.

    Args:
        current: `optimizer.param_groups`.
        state_dict: what `optimizer.state_dict()` gave.

    Raises:
        ConfigError: as `match`.
    """
    groups = [
        {**merged(found.now, found.sources), "params": list(found.places)} for found in match(current, state_dict)
    ]
    return {**state_dict, "param_groups": groups}


def match(current: Sequence[ParamGroup], state_dict: Mapping[str, Any]) -> list[Match]:
    """Where the parameters of each current group are in a state dict.

    By name; where either side has no names, the places must do, and then the groups must be as many.

    Args:
        current: `optimizer.param_groups`.
        state_dict: what `optimizer.state_dict()` gave.

    Raises:
        ConfigError: a parameter is missing from the state dict or from the current groups, or a state's tensor is of
            another shape.
    """
    saved = state_dict["param_groups"]
    names = [name for group in current for name in (group.get("param_names") or ())]
    if saved and all(isinstance(param, str) for group in saved for param in group["params"]):
        return _from_dcp(current, saved)
    if not names or not all(group.get("param_names") for group in saved):
        check_saved(current, saved)
        pairs = zip(current, saved, strict=True)
        return [Match(now, [group], group["params"]) for now, group in pairs]
    found = _by_name(saved, names)
    _check_names(names, found)
    return [_matched(now, found, state_dict["state"]) for now in current]


def check_algorithm(info: OptimizerInfo, found: Match, states: Mapping[Any, Any]) -> None:
    """Whether a group's states are of its algorithm, where the checkpoint says of which: buffers may share names.

    Raises:
        ConfigError: they are another's.
    """
    for source in found.sources:
        saved = source.get("configured", {}).get("algorithm", info.name)
        held = [place for place in source["params"] if states.get(place)]
        if held and saved != info.name and not any({saved, info.name} <= family for family in _FAMILIES):
            names = found.now.get("param_names") or ()
            raise ConfigError(
                f"the checkpoint's state of {format_names(names, 3)} is {saved}'s, and this run has {info.name} "
                "for them. "
                "Give the algorithm that it was saved under"
            )


def check_states(info: OptimizerInfo, group: ParamGroup, names: Sequence[str], states: Mapping[Any, Any]) -> None:
    """Whether the states of a group are those of an algorithm: torch's classes would go on with another's, or crash.

    Args:
        info: the algorithm.
        group: in a state dict.
        names: its parameters'.
        states: the state dict's.

    Raises:
        ConfigError: they are not.
    """
    if info.single_group:
        return
    # Of a factored second moment each parameter has the rows and columns, or the whole.
    needed = [] if info.factored else info.buffers_under(group)
    for name, place in zip(names, group["params"], strict=True):
        state = states.get(place) or {}
        others = [key for key, value in state.items() if key != "step" and value is not None]
        missing = [key for key in needed if key not in state]
        foreign = not needed and others and not info.buffers.keys() & set(others)
        if state and (missing or foreign):
            what = f"no {missing[0]}" if missing else others[0]
            raise ConfigError(
                f"the checkpoint's state of {name} has {what}, which does not go with {info.name}: it was saved by "
                "another optimizer, or under other options. Give the ones that it was saved under"
            )


def check_saved(current: Sequence[ParamGroup], saved: Sequence[ParamGroup]) -> None:
    """Whether a checkpoint's param groups are the current ones, for where loading can only go by place.

    Args:
        current: param groups, with `name` and `param_names` where they have them.
        saved: `optimizer.state_dict()["param_groups"]`.

    Raises:
        ConfigError: there are others, or other parameters in them.
    """
    advice = "Give the groups and stages that the checkpoint was saved under."
    if len(current) != len(saved):
        here, there = (", ".join(str(group.get("name", "unnamed")) for group in groups) for groups in (current, saved))
        raise ConfigError(
            f"the checkpoint has {len(saved)} param groups ({there}), this run {len(current)} ({here}). {advice}"
        )
    for ours, theirs in zip(current, saved, strict=True):
        mine, other = tuple(ours.get("param_names") or ()), tuple(theirs.get("param_names") or ())
        if mine and other and mine != other:
            odd = sorted(set(mine) ^ set(other)) or list(mine)
            raise ConfigError(
                f"param group '{ours.get('name')}' of this run is '{theirs.get('name')}' in the checkpoint, "
                f"and they differ in {len(odd)} parameters: {format_names(odd, 3)}. {advice}"
            )
        sizes = [len(group["params"]) for group in (ours, theirs) if "params" in group]
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"param group '{ours.get('name')}' has {sizes[0]} parameters in this run and {sizes[1]} in the "
                f"checkpoint, which does not say their names. {advice}"
            )


# One state, and more than one name for the rule: a run may go over.
_FAMILIES = (
    {"adam", "adamw", "amsgrad"},
    {"nadam", "nadamw"},
    {"adabound", "adaboundw", "amsbound"},
)
# Of optimizers that others have registered, no buffer is known to have the parameter's shape.
_BUFFERS = frozenset(buffer for info in BUILT_IN.values() for buffer in info.buffers.keys() - info.reduced)


def _matched(now: ParamGroup, found: Mapping[str, tuple[Any, ParamGroup]], states: Mapping[Any, Any]) -> Match:
    held = [found[name] for name in now["param_names"]]
    for name, param, (place, _) in zip(now["param_names"], now["params"], held, strict=True):
        _check_shapes(name, param, states.get(place, {}))
    return Match(now, _each_once(group for _, group in held), [place for place, _ in held])


def _each_once(groups: Iterable[ParamGroup]) -> list[ParamGroup]:
    return list({id(group): group for group in groups}.values())


def _from_dcp(current: Sequence[ParamGroup], saved: Sequence[ParamGroup]) -> list[Match]:
    """From torch.distributed.checkpoint, which has put each parameter into its current group by itself.

    It gives a saved group's values to one of the current groups alone, but with the names of all its parameters.
    """
    held = {name: group for group in saved for name in group.get("param_names") or ()}
    found = []
    for now, group in zip(current, saved, strict=True):
        sources = [held[name] for name in now.get("param_names") or () if name in held]
        found.append(Match(now, _each_once(sources) or ([group] if "lr" in group else []), group["params"]))
    return found


def _by_name(saved: Sequence[ParamGroup], known: Sequence[str]) -> dict[str, tuple[Any, ParamGroup]]:
    """By a parameter's clean name: its place in the state dict, and its group there."""
    names = [name for group in saved for name in group["param_names"]]
    if not set(known) & set(names):  # another program's are not clean
        names = without_leading_wrappers(names)
    places = [(place, group) for group in saved for place in group["params"]]
    return dict(zip(names, places, strict=True))


def _check_names(mine: Sequence[str], found: Mapping[str, Any]) -> None:
    known = set(mine)
    missing = [name for name in mine if name not in found]
    unknown = [name for name in found if name not in known]
    if missing:
        raise ConfigError(
            f"the checkpoint's optimizer holds no state for {len(missing)} parameters of this run: "
            f"{format_names(missing, 3)}{_and_more(unknown)}. Give the model and the frozen rules that it was "
            "saved under"
        )
    if unknown:
        raise ConfigError(
            f"the checkpoint's optimizer holds {len(unknown)} parameters that this run's does not: "
            f"{format_names(unknown, 3)}. Give the model and the frozen rules that it was saved under"
        )


def _and_more(unknown: Sequence[str]) -> str:
    return f", and holds {format_names(unknown, 3)}, which this run's does not" if unknown else ""


def _check_shapes(name: str, param: Any, state: Mapping[str, Any]) -> None:
    """Whether the buffers could be this parameter's: torch would find out at the next step, or never."""
    for key in _BUFFERS & state.keys():
        value = state[key]
        if not isinstance(value, Tensor) or not isinstance(param, Tensor):
            continue
        if value.shape != _shape(key, param.shape):
            raise ConfigError(
                f"the checkpoint's {key} of {name} has the shape {list(value.shape)}, the parameter "
                f"{list(param.shape)}: it was saved for another model"
            )


def _shape(buffer: str, shape: torch.Size) -> torch.Size:
    """The shape of a buffer: the parameter's, or of a factored second moment (arXiv:1804.04235) its rows or columns."""
    if buffer == "row_var":
        return torch.Size((*shape[:-1], 1))
    return torch.Size((*shape[:-2], 1, *shape[-1:])) if buffer == "col_var" else shape
