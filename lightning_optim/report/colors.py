"""Which color and dashes each group has, in all charts and runs of a page."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from typing import NamedTuple

# Of Okabe and Ito, told apart by everyone; yellow and black are left out, as they are pale on one of the two grounds.
_FEW = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# Beside a scale, for groups that are no layers.
_BESIDE_SCALE = ("#57606a", "#bf3989", "#8a5a2b", "#a371f7")
_DASHES = ("", "4 2", "1.2 1.6", "6 2 1.2 2")
_DARK_MIX = 0.3


class Look(NamedTuple):
    """How a group's lines look."""

    light: str
    """`#rrggbb`, on a white ground."""
    dark: str
    dashes: str
    """Lengths of dashes and gaps, as in SVG; '' for a solid line."""


def assign_looks(groups: Iterable[str]) -> dict[str, Look]:
    """A look for each group.

    A group named below another one, as `layers.3.no_decay` below `layers.3`, has its color and is dashed. More colors
    than six are taken from one scale in the order of the groups, so that layers that follow each other have similar
    ones; a few groups without a number in their names have colors beside it.

    Args:
        groups: in the order of the legend.
    """
    groups = list(dict.fromkeys(groups))
    parents = {group: _parent(group, set(groups)) for group in groups}
    owners = [group for group in groups if parents[group] == group]
    colors = _assign_colors(owners)
    looks, children = {}, dict.fromkeys(owners, 0)
    for group in groups:
        parent = parents[group]
        if parent != group:
            children[parent] += 1
        dashes = _DASHES[children[parent] % len(_DASHES)] if parent != group else ""
        light = colors[parent]
        looks[group] = Look(light, _mix_with_white(light, _DARK_MIX), dashes)
    return looks


def _parent(group: str, groups: set[str]) -> str:
    """The shortest of the groups that a group is named below, or itself."""
    segments = group.split(".")
    names = (".".join(segments[:count]) for count in range(1, len(segments)))
    return next((name for name in names if name in groups), group)


def _assign_colors(groups: list[str]) -> dict[str, str]:
    if len(groups) <= len(_FEW):
        return dict(zip(groups, _FEW, strict=False))
    others = [group for group in groups if not any(map(str.isdecimal, group))]
    beside = others if len(others) <= len(_BESIDE_SCALE) else []
    scaled = [group for group in groups if group not in beside]
    # From blue through green and yellow to red, darker in the middle, which is bright.
    hues = (0.68 * (1 - index / max(len(scaled) - 1, 1)) for index in range(len(scaled)))
    scale = (_to_hex(*colorsys.hls_to_rgb(hue, 0.46 - 0.12 * _brightness(hue), 0.85)) for hue in hues)
    return {**dict(zip(beside, _BESIDE_SCALE, strict=False)), **dict(zip(scaled, scale, strict=True))}


def _brightness(hue: float) -> float:
    """How much brighter than blue or red a hue is: 1 between yellow and cyan."""
    return math.sqrt(max(0.0, 1 - abs(hue - 0.3) / 0.2))


def _mix_with_white(color: str, share: float) -> str:
    parts = (int(color[index : index + 2], 16) / 255 for index in (1, 3, 5))
    return _to_hex(*(part + (1 - part) * share for part in parts))


def _to_hex(*parts: float) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)
