"""One chart of a signal as SVG: a line for each group, the thaws marked, in colors that the page's stylesheet sets."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ConfigError
from .colors import Look
from .curves import Curve, Thaw
from .thin import thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_IN, _HEIGHT_IN = 5.6, 2.7
_THAW_LABELS_IN = 0.3
_MAX_LINEAR_RATIO = 20.0
_MAX_DECADES = 12
_MIN_LABEL_DISTANCE = 0.05
"""Of the width; thaws that are closer share a label."""
# Colors that no palette has: the page sets what they stand for, in light and dark. A group's is `#f1` and its number.
_INK, _PALE, _ALARM, _USUAL = "#f00001", "#f00002", "#f00003", "#f00004"
_VARIABLES = {_INK: "ink", _PALE: "pale", _ALARM: "alarm", _USUAL: "usual"}
_GROUP_COLOR = re.compile(r"#f1([0-9a-f]{4})")
_STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.parse_math": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn in one picture."""

    title: str
    curves: Mapping[str, Curve]
    """By group."""
    is_log: bool | None = None
    """None: where the values need it."""
    lines: Sequence[tuple[float, str]] = ()
    """Levels that are drawn across, each with its label."""
    band: tuple[float, float] | None = None
    """From where to where values are usual."""
    is_held: bool = False
    """Whether a value holds until the next point, and the last one to the end: it may be logged where it changes."""


def check_matplotlib() -> None:
    """Check that charts can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError('report: matplotlib is not installed. Type pip install "lightning-optim[plot]"') from error


def draw_svg(
    chart: Chart, looks: Mapping[str, Look], thaws: Sequence[Thaw], *, first: int, last: int, salt: str
) -> str:
    """The chart as an SVG element, whose lines have the class `g0`, `g1`, ... by the order of the looks.

    Args:
        chart: to draw.
        looks: of all groups of the page.
        thaws: to mark.
        first: the first step of the axis.
        last: the last.
        salt: another one for each chart of a page, since ids are unique in a page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        # Not with pyplot, which keeps every figure in memory and may need a display.
        height = _HEIGHT_IN + (_THAW_LABELS_IN if thaws else 0.0)
        figure = Figure(figsize=(_WIDTH_IN, height))
        axes = figure.add_axes((0.1, 0.42 / height, 0.89, (_HEIGHT_IN - 0.5) / height))
        axes.set_xlim(first, max(last, first + 1))
        low, high = _limits(chart)
        _scale(axes, chart, low, high)
        index_of = {group: index for index, group in enumerate(looks)}
        for group, curve in chart.curves.items():
            _draw_curve(axes, _hold(curve, last) if chart.is_held else curve, looks[group], index_of[group])
        _draw_levels(axes, chart)
        _mark_thaws(axes, thaws, first, last)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return _embed(text.getvalue(), chart.title)


def _limits(chart: Chart) -> tuple[float, float]:
    """The lowest and highest finite value; only positive ones, unless there are none."""
    values = np.concatenate([curve.values for curve in chart.curves.values()] or [np.ones(1)])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    used = positive if len(positive) and chart.is_log is not False else values
    return (float(used.min()), float(used.max())) if len(used) else (1.0, 1.0)


def _scale(axes: Axes, chart: Chart, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.set_xlabel("step", loc="right", labelpad=0, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_PALE, alpha=0.3, linewidth=0.5)
    is_log = chart.is_log if chart.is_log is not None else low > 0 and high > _MAX_LINEAR_RATIO * low
    if is_log and low > 0:
        levels = [level for level, _ in chart.lines]
        low, high = min((low, *levels)), max((high, *levels))
        low = max(low, high / 10.0**_MAX_DECADES)
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(low / 1.5, high * 1.5)
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_locator(NullLocator())
        if high < 100 * low:  # there may be one power of ten between them, or none
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    else:
        room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
        axes.set_ylim(0 if 0 <= low < 0.5 * high else low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _hold(curve: Curve, last: int) -> Curve:
    """The curve with two points for each change, and one at the end."""
    steps = np.append(np.repeat(curve.steps, 2)[1:], last)
    return Curve(steps, np.repeat(curve.values, 2))


def _draw_curve(axes: Axes, curve: Curve, look: Look, index: int) -> None:
    drawn = thin(curve)
    dashes: Any = (0, tuple(map(float, look.dashes.split()))) if look.dashes else "solid"
    values = np.where(np.isfinite(drawn.values), drawn.values, np.nan)
    color = f"#f1{index:04x}"
    marker = "o" if len(drawn.steps) == 1 else None
    axes.plot(
        drawn.steps, values, color=color, linewidth=1.2, linestyle=dashes, marker=marker, markersize=3, gid=f"g{index}"
    )
    is_bad = ~np.isfinite(curve.values)
    starts = curve.steps[is_bad & ~np.concatenate([[False], is_bad[:-1]])]
    if len(starts):
        # Groups that are no longer finite at the same step have marks below each other.
        heights = np.full(len(starts), 0.98 - 0.04 * (index % 20))
        axes.plot(
            starts, heights, transform=axes.get_xaxis_transform(), color=color, linestyle="none", marker="X",
            markersize=6, gid=f"g{index}",
        )  # fmt: skip


def _draw_levels(axes: Axes, chart: Chart) -> None:
    if chart.band is not None:
        axes.axhspan(*chart.band, color=_USUAL, alpha=0.13, linewidth=0, zorder=0)
    for level, label in chart.lines:
        axes.axhline(level, color=_ALARM, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            label, (0.995, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
            ha="right", color=_ALARM, annotation_clip=True,
        )  # fmt: skip


def _mark_thaws(axes: Axes, thaws: Sequence[Thaw], first: int, last: int) -> None:
    merged: list[tuple[int, list[str]]] = []
    for thaw in sorted(thaws):
        axes.axvline(thaw.step, color=_PALE, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        if merged and thaw.step - merged[-1][0] < _MIN_LABEL_DISTANCE * (last - first):
            merged[-1][1].append(thaw.label)
        else:
            merged.append((thaw.step, [thaw.label]))
    for step, labels in merged:
        shown = labels[0] if len(labels) == 1 else f"{labels[0]} +{len(labels) - 1}"
        axes.annotate(
            shown, (step, 1.0), xycoords=("data", "axes fraction"), xytext=(1, 2), textcoords="offset points",
            fontsize=6.5, rotation=35 if len(merged) > 1 else 0, rotation_mode="anchor", annotation_clip=False,
        )  # fmt: skip


def _embed(svg: str, title: str) -> str:
    """The SVG element alone, scalable, its colors those of the page, its numbers with one decimal."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = _GROUP_COLOR.sub(lambda found: f"var(--g{int(found[1], 16)})", svg)
    # The ids of groups are the same in all charts; nothing refers to those of other parts, whose names are numbered.
    svg = re.sub(r'<g id="(g\d+)">', r'<g class="line \1">', svg)
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
    return re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d)\d+", r"\1", " ".join(path[0].split())), svg)
