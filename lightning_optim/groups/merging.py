"""A param group's values after a load: which come from the checkpoint, and which from the config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Group = Mapping[str, Any]

ABOUT = ("params", "param_names", "name", "algorithm", "schedule", "peak_lr", "configured")
"""What a param group says of itself, beside its hyperparameters and what schedulers keep there."""
OF_THIS_RUN = ("foreach", "fused")
"""How a step runs belongs to the run, not to the checkpoint."""

_CYCLED = ("momentum", "betas")
_ABSENT = object()


def merged(now: Group, sources: Sequence[Group]) -> dict[str, Any]:
    """A group's values, without its parameters: the checkpoint's where its config said the same, else the config's.

    An lr that was edited goes on at the same part of its peak. A checkpoint that does not say what was configured
    (another program's) counts as it stands, as with torch.

    Args:
        now: a current group, fresh from the config.
        sources: the saved groups that its parameters were in; none where it is new.
    """
    fresh = {key: value for key, value in now.items() if key != "params"}
    said = {key: fresh[key] for key in (*ABOUT, *OF_THIS_RUN) if key in fresh}
    if not sources:
        return fresh
    if not says_configured([now, *sources]):
        return {**said, **_without_params(sources[0]), **{key: said[key] for key in said if key != "peak_lr"}}
    curve = on_curve(now, sources)
    return {**fresh, **_unchanged(now, sources, curve), **_of_curve(now, curve), **said}


def on_curve(now: Group, sources: Iterable[Group]) -> list[Group]:
    """The saved groups whose schedule was this one's."""
    return [source for source in sources if source.get("schedule") == now.get("schedule")]


def says_configured(groups: Iterable[Group]) -> bool:
    """Whether all of these say what was configured."""
    return all("configured" in group for group in groups)


def _unchanged(now: Group, sources: Sequence[Group], curve: Sequence[Group]) -> dict[str, Any]:
    """The hyperparameters that every source was configured to have as this one is, and has in common.

    What schedulers cycle is asked of those that were on this curve alone.
    """
    configured = now["configured"]
    found = {}
    for key in configured.keys() & now.keys() - {"lr", *OF_THIS_RUN}:
        asked = curve if key in _CYCLED else sources
        values = [source.get(key, _ABSENT) for source in asked]
        unchanged = all(source["configured"].get(key, _ABSENT) == configured[key] for source in sources)
        if unchanged and values and values[0] is not _ABSENT and all(value == values[0] for value in values):
            found[key] = values[0]
    return found


def _of_curve(now: Group, sources: Sequence[Group]) -> dict[str, Any]:
    """lr at its place on the curve, and what schedulers keep in a group; nothing where the curve is another."""
    if not sources:
        return {}
    same_peak = [source for source in sources if source["peak_lr"] == now["peak_lr"]]
    if not same_peak:
        peak = sources[0]["peak_lr"]
        return {"lr": now["peak_lr"] * (float(sources[0]["lr"]) / peak)} if peak else {}
    source = same_peak[0]
    known = {*now["configured"], *source["configured"], *ABOUT, *OF_THIS_RUN}
    return {key: value for key, value in source.items() if key == "lr" or key not in known}


def _without_params(group: Group) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
