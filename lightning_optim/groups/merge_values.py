"""`merge_values`: which values of a param group come from the checkpoint on load, and which from the config."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.param_group_keys import EXECUTION_FLAGS, GROUP_METADATA, SCHEDULE

ParamGroup = Mapping[str, Any]

# What schedulers cycle besides lr.
_CYCLED = ("momentum", "betas")
_ABSENT = object()


def merge_values(current: ParamGroup, sources: Sequence[ParamGroup]) -> dict[str, Any]:
    """A group's values, without its parameters: from the checkpoint where the config is unchanged, else the config's.

    After an edit of its peak, lr continues at the same fraction of the new peak. Where the checkpoint does not record
    what was configured (another program saved it), a group with the same parameters takes the saved values, as in
    torch, and any other group the config's.

    Args:
        current: a current group, as the config builds it.
        sources: the saved groups that its parameters were in; none where the group is new.
    """
    if not sources:
        return _without_params(current)
    if not _record_configured([current, *sources]):
        return _merge_unrecorded(current, sources)
    same_schedule = _with_schedule_of(current, sources)
    return {
        **_without_params(current),
        **_unchanged_values(current, sources, same_schedule),
        **_scheduled_values(current, same_schedule),
    }


def has_moved(current: ParamGroup, sources: Sequence[ParamGroup]) -> bool:
    """Whether no source's lr can be scaled to this group's: all had other schedules, or a peak of 0."""
    if not _record_configured([current, *sources]):
        return False
    same_schedule = _with_schedule_of(current, sources)
    return not same_schedule or all(source["peak_lr"] == 0 != current["peak_lr"] for source in same_schedule)


def _merge_unrecorded(current: ParamGroup, sources: Sequence[ParamGroup]) -> dict[str, Any]:
    names = [set(group.get("param_names") or ()) for group in (current, *sources)]
    if len(sources) > 1 or (names[0] and names[1] and names[0] != names[1]):
        warnings.warn(
            f"param group '{current.get('name')}': the checkpoint does not record what was configured, and grouped "
            "its parameters differently; it takes lr and the rest from the config",
            stacklevel=2,
        )
        return _without_params(current)
    keys = [key for key in (*GROUP_METADATA, *EXECUTION_FLAGS) if key in current and key not in ("params", "peak_lr")]
    peak = {"peak_lr": current["peak_lr"]} if "peak_lr" in current else {}
    return {**peak, **_without_params(sources[0]), **{key: current[key] for key in keys}}


def _record_configured(groups: Iterable[ParamGroup]) -> bool:
    return all("configured" in group for group in groups)


def _with_schedule_of(current: ParamGroup, sources: Iterable[ParamGroup]) -> list[ParamGroup]:
    return [source for source in sources if source.get(SCHEDULE) == current.get(SCHEDULE)]


def _unchanged_values(
    current: ParamGroup, sources: Sequence[ParamGroup], same_schedule: Sequence[ParamGroup]
) -> dict[str, Any]:
    """The hyperparameters but lr whose configured value is unchanged, and whose saved value all sources share.

    For values that schedulers cycle, only sources with the same schedule are compared.
    """
    configured = current["configured"]
    found = {}
    for key in configured.keys() & current.keys() - {"lr", *EXECUTION_FLAGS}:
        compared = same_schedule if key in _CYCLED else sources
        values = [source.get(key, _ABSENT) for source in compared]
        is_unchanged = all(source["configured"].get(key, _ABSENT) == configured[key] for source in sources)
        if is_unchanged and values and values[0] is not _ABSENT and all(value == values[0] for value in values):
            found[key] = values[0]
    return found


def _scheduled_values(current: ParamGroup, same_schedule: Sequence[ParamGroup]) -> dict[str, Any]:
    """lr at its position on the schedule, and the keys that schedulers add to a group."""
    if not same_schedule:
        return {}
    same_peak = [source for source in same_schedule if source["peak_lr"] == current["peak_lr"]]
    if not same_peak:
        nonzero = [source for source in same_schedule if source["peak_lr"]]
        return {"lr": current["peak_lr"] * (float(nonzero[0]["lr"]) / nonzero[0]["peak_lr"])} if nonzero else {}
    source = same_peak[0]
    known = {*current["configured"], *source["configured"], *GROUP_METADATA, *EXECUTION_FLAGS}
    return {key: value for key, value in source.items() if key == "lr" or key not in known}


def _without_params(group: ParamGroup) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
