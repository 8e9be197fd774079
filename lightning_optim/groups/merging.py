"""A param group's values after a load: which come from the checkpoint, and which from the config."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.param_group_keys import EXECUTION_FLAGS, GROUP_METADATA, SCHEDULE

ParamGroup = Mapping[str, Any]

_CYCLED = ("momentum", "betas")
_ABSENT = object()


def merged(now: ParamGroup, sources: Sequence[ParamGroup]) -> dict[str, Any]:
    """A group's values, without its parameters: the checkpoint's where its config said the same, else the config's.

    An lr that was edited goes on at the same part of its peak. Where a checkpoint does not say what was configured
    (another program's), a group that was there just so has its values, as with torch, and any other the config's.

    Args:
        now: a current group, fresh from the config.
        sources: the saved groups that its parameters were in; none where it is new.
    """
    fresh = {key: value for key, value in now.items() if key != "params"}
    said = {key: fresh[key] for key in (*GROUP_METADATA, *EXECUTION_FLAGS) if key in fresh}
    if not sources:
        return fresh
    if not says_configured([now, *sources]):
        return _of_another_program(now, sources)
    curve = on_curve(now, sources)
    return {**fresh, **_unchanged(now, sources, curve), **_of_curve(now, curve), **said}


def has_moved(now: ParamGroup, sources: Sequence[ParamGroup]) -> bool:
    """Whether no source's lr says where on its curve a group is: they were on others, or had a peak of 0."""
    if not says_configured([now, *sources]):
        return False
    curve = on_curve(now, sources)
    return not curve or all(source["peak_lr"] == 0 != now["peak_lr"] for source in curve)


def on_curve(now: ParamGroup, sources: Iterable[ParamGroup]) -> list[ParamGroup]:
    """The saved groups whose schedule was this one's."""
    return [source for source in sources if source.get(SCHEDULE) == now.get(SCHEDULE)]


def says_configured(groups: Iterable[ParamGroup]) -> bool:
    """Whether all of these say what was configured."""
    return all("configured" in group for group in groups)


def _of_another_program(now: ParamGroup, sources: Sequence[ParamGroup]) -> dict[str, Any]:
    names = [set(group.get("param_names") or ()) for group in (now, *sources)]
    if len(sources) > 1 or (names[0] and names[1] and names[0] != names[1]):
        warnings.warn(
            f"param group '{now.get('name')}': the checkpoint does not say what was configured, and its parameters "
            "were grouped otherwise there; it takes lr and the rest from the config",
            stacklevel=2,
        )
        return _without_params(now)
    about = {
        key: now[key] for key in (*GROUP_METADATA, *EXECUTION_FLAGS) if key in now and key not in ("params", "peak_lr")
    }
    return (
        {"peak_lr": now["peak_lr"], **_without_params(sources[0]), **about}
        if "peak_lr" in now
        else {**_without_params(sources[0]), **about}
    )


def _unchanged(now: ParamGroup, sources: Sequence[ParamGroup], curve: Sequence[ParamGroup]) -> dict[str, Any]:
    """The hyperparameters that every source was configured to have as this one is, and has in common.

    What schedulers cycle is asked of those that were on this curve alone.
    """
    configured = now["configured"]
    found = {}
    for key in configured.keys() & now.keys() - {"lr", *EXECUTION_FLAGS}:
        asked = curve if key in _CYCLED else sources
        values = [source.get(key, _ABSENT) for source in asked]
        unchanged = all(source["configured"].get(key, _ABSENT) == configured[key] for source in sources)
        if unchanged and values and values[0] is not _ABSENT and all(value == values[0] for value in values):
            found[key] = values[0]
    return found


def _of_curve(now: ParamGroup, sources: Sequence[ParamGroup]) -> dict[str, Any]:
    """lr at its place on the curve, and what schedulers keep in a group; nothing where the curve is another."""
    if not sources:
        return {}
    same_peak = [source for source in sources if source["peak_lr"] == now["peak_lr"]]
    if not same_peak:
        told = [source for source in sources if source["peak_lr"]]
        return {"lr": now["peak_lr"] * (float(told[0]["lr"]) / told[0]["peak_lr"])} if told else {}
    source = same_peak[0]
    known = {*now["configured"], *source["configured"], *GROUP_METADATA, *EXECUTION_FLAGS}
    return {key: value for key, value in source.items() if key == "lr" or key not in known}


def _without_params(group: ParamGroup) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
