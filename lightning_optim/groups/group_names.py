"""The names of groups: the stage, then the rules, joined by dots; unique within a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .compose import MatchedRules
from .group import ALL, DEFAULT, Group


def join_segments(matched: MatchedRules) -> str:
    """The name of a group: the labels of its rules, each with that of the layer where it has layers; or `default`."""
    segments = (f"{rule.label}.{layer.label}" if layer else rule.label for rule, layer in matched)
    return ".".join(segments) or DEFAULT


def name_by_stage(parts: Sequence[Group]) -> list[Group]:
    """Groups renamed by stage, then rules; a rule named like the stage is left out unless two names would be equal."""

    def join(part: Group, *, in_full: bool) -> str:
        segments = [] if part.name == DEFAULT else part.name.split(".")
        stage = str(part.stage)
        name = stage.partition(".")[0]  # of a layer's stage, `top.11`, without the layer
        return ".".join([stage, *(segment for segment in segments if in_full or segment != name)])

    counts = Counter(join(part, in_full=False) for part in parts)
    return [replace(part, name=join(part, in_full=counts[join(part, in_full=False)] > 1)) for part in parts]


def deduplicate_names(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups under unique names: `x`, `x-2`, `x-3`. Hand-made optimizers may repeat a name.

    The first group named `all` is `all-2`: curves and tables over all groups have that name.
    """
    seen: Counter[str] = Counter({ALL: 1})
    taken = {ALL, *(group.name for group in groups)}
    renamed = []
    for group in groups:
        seen[group.name] += 1
        name = group.name
        while seen[group.name] > 1 and name in taken:
            name = f"{group.name}-{seen[group.name]}"
            if name in taken:
                seen[group.name] += 1
        taken.add(name)
        renamed.append(group if name == group.name else replace(group, name=name))
    return tuple(renamed)
