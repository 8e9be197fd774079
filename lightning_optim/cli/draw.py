"""A simulated run as a figure: one line a group, the thaws marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.errors import ConfigError, format_names
from .simulate import Curve, Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from numpy.typing import NDArray

_SUFFIXES = (".png", ".svg", ".pdf")
_WIDTH_IN, _HEIGHT_IN = 7.5, 4.2
_LEGEND_ROW_IN = 0.172
_MOST_ROWS = 40
# In points, 72 an inch.
_FONT = 8.0
_LINE = 1.6
_DASH = 5.0
_EPOCHS_BELOW = 23.0
# Between labels: nearer ones overlap even when turned, or where they are not.
_GAP, _BLANK = 10.0, 10.0
_TICKS = (1, 2, 5, 10)
# Peaks further apart than this are told apart on a log scale only.
_LOG_FROM = 100.0
# A step is seen in a short run; in a long one it is but twice the points.
_MOST_STAIRS = 2000
# Many groups need more hues than a sober map has; turbo's are too bright for lines.
_MOST_SOBER = 8
_SPAN, _DARKER = (0.03, 0.9), 0.85
_INK, _PALE = "#303030", "#8a8a8a"
_STYLE: dict[Any, Any] = {
    "font.size": _FONT,
    "text.color": _INK,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.parse_math": False,
    "agg.path.chunksize": 20_000,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning-optim",
}


def check_drawable(path: Path) -> None:
    """Whether a figure can be drawn, and written there.

    Raises:
        ConfigError: matplotlib is missing; or it is no name of a picture, or in no folder that there is.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError('--plot: matplotlib draws it. Type pip install "lightning-optim[plot]"') from error
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--plot: got {path}. Type a name that ends in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot: there is no folder {path.parent}. Make it first: mkdir -p {path.parent}")


def draw(simulation: Simulation, path: Path, titles: Sequence[str] = ()) -> None:
    """Draw each group's lr over the run, and write it.

    Args:
        simulation: of the run.
        path: checked; its suffix says in which format.
        titles: lines below the title.

    Raises:
        ConfigError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = min(len(simulation.curves), _MOST_ROWS)
    with matplotlib.rc_context(_STYLE):
        # Not by pyplot, which keeps every figure and asks for a screen.
        figure = Figure(figsize=(_WIDTH_IN, max(_HEIGHT_IN, rows * _LEGEND_ROW_IN)), dpi=160)
        axes = figure.add_axes((0, 0, 1, 1))
        _draw_curves(axes, simulation)
        _set_scales(axes, simulation)
        height = _mark_thaws(axes, simulation)
        _write_titles(axes, [*titles, str(simulation.length), *_notes(simulation)], height)
        # Written on the day or the day after, it is the same file.
        undated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        try:
            figure.savefig(path, bbox_inches="tight", pad_inches=0.15, metadata=undated[path.suffix.lower()])
        except OSError as error:
            raise ConfigError(f"--plot: {path} cannot be written: {error.strerror or error}") from error


def _draw_curves(axes: Axes, simulation: Simulation) -> None:
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    curves = simulation.curves
    drawstyle: Literal["steps-post", "default"] = "steps-post" if len(curves[0].lr) <= _MOST_STAIRS else "default"
    many = len(curves) > _MOST_SOBER
    colors = colormaps["turbo" if many else "viridis"](np.linspace(*_SPAN, len(curves)))
    colors[:, :3] *= _DARKER if many else 1.0
    handles = []
    for place, (curve, color) in enumerate(zip(curves, colors, strict=True)):
        covered, dashes = _covered(curves, place)
        free = ~covered
        # Its line reaches to where it meets others, and begins where it leaves them.
        free[1:] |= ~covered[:-1]
        free[:-1] |= ~covered[1:]
        for part, linestyle in ((free, "solid"), (covered, dashes)):
            if np.isfinite(curve.lr[part]).any():
                lr = np.where(part, curve.lr, np.nan)
                # The lr of the last step holds until its end.
                axes.plot(np.append(lr, lr[-1]), color=color, linewidth=_LINE, linestyle=linestyle, drawstyle=drawstyle)
        handles.append(Line2D([], [], color=color, linewidth=_LINE if _is_drawn(curve) else 0.0))
    legend = axes.legend(
        handles,
        ["" for _ in curves],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        handlelength=1.4,
        ncols=math.ceil(len(curves) / _MOST_ROWS),
    )
    for curve, text in zip(curves, legend.get_texts(), strict=True):
        # Not as a label, which may not begin with an underscore.
        text.set_text(_label(curve, simulation))
        text.set_color(_INK if _is_drawn(curve) else _PALE)


def _covered(curves: Sequence[Curve], place: int) -> tuple[NDArray[np.bool_], Any]:
    """Where a curve lies on others drawn before it, and the line style in whose gaps they are seen."""
    below, above = (_num_equal(curves[place], others) for others in (curves[:place], curves[place + 1 :]))
    return below > 0, (0, ((int(above.max()) + 1) * _DASH, int(below.max()) * _DASH))


def _num_equal(curve: Curve, others: Sequence[Curve]) -> NDArray[np.int64]:
    """On how many others it lies, by step."""
    count = np.zeros(len(curve.lr), np.int64)
    for other in others:
        count += curve.lr == other.lr
    return count


def _label(curve: Curve, simulation: Simulation) -> str:
    if curve.stage in simulation.unpredictable:
        return f"{curve.group} (not foreseen)"
    if not _is_drawn(curve):
        return f"{curve.group} (not in this run)"
    # A log scale has no place for it.
    return curve.group if _peak(curve) else f"{curve.group} (lr 0)"


def _is_drawn(curve: Curve) -> bool:
    return bool(np.isfinite(curve.lr).any())


def _peak(curve: Curve) -> float:
    return float(np.nanmax(curve.lr, initial=0.0))


def _set_scales(axes: Axes, simulation: Simulation) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    total, per_epoch = simulation.length.total("step"), simulation.length.steps_per_epoch
    axes.set_xlim(0, total)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    _name_axis(axes, 0.0, "optimizer steps")
    axes.set_ylabel("lr", loc="top", rotation="horizontal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_PALE, alpha=0.25, linewidth=0.5)
    peaks = [peak for curve in simulation.curves if (peak := _peak(curve)) > 0]
    if peaks and max(peaks) > _LOG_FROM * min(peaks):
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(min(peaks) / _LOG_FROM, max(peaks) * 1.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.05 * max(peaks, default=1.0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"{lr:g}"))
    if per_epoch is not None:
        place = -_EPOCHS_BELOW / _size(axes)[1]
        below = axes.secondary_xaxis(place, functions=(_times(1 / per_epoch), _times(per_epoch)))
        below.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_TICKS))
        _name_axis(axes, place, "epochs")


def _times(factor: float) -> Any:
    return lambda values: values * factor


def _name_axis(axes: Axes, height: float, name: str) -> None:
    """After its last number, not below it."""
    axes.annotate(
        name,
        (1.0, height),
        xycoords="axes fraction",
        xytext=(30, -11),
        textcoords="offset points",
        annotation_clip=False,
    )


def _mark_thaws(axes: Axes, simulation: Simulation) -> float:
    """Dashed lines with the stages' names above them; returns how high these are, in points."""
    at: dict[int, list[str]] = {}
    for stage, step in simulation.thaws.items():
        at.setdefault(step, []).append(stage)
    for step in at:
        axes.axvline(step, color=_PALE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    gap = _GAP * simulation.length.total("step") / _size(axes)[0]
    labels = [
        axes.annotate(
            format_names(names, 3),
            (step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            annotation_clip=False,
        )
        for step, names in _apart(at, gap)
    ]
    boxes = [label.get_window_extent() for label in labels]
    if any(one.x1 + _BLANK > other.x0 for one, other in pairwise(boxes)):
        for label in labels:
            label.set(rotation=45, rotation_mode="anchor")
    return max((_size(label)[1] for label in labels), default=0.0)


def _apart(at: Mapping[int, list[str]], gap: float) -> list[tuple[int, list[str]]]:
    """Labels at least so many steps apart: one that is nearer to the last is added to it."""
    found: list[tuple[int, list[str]]] = []
    for step, names in sorted(at.items()):
        if found and step - found[-1][0] < gap:
            found[-1][1].extend(names)
        else:
            found.append((step, list(names)))
    return found


def _size(what: Axes | Text) -> tuple[float, float]:
    """Width and height in points."""
    assert what.figure is not None
    extent = what.get_window_extent()
    return extent.width / what.figure.dpi * 72, extent.height / what.figure.dpi * 72


def _write_titles(axes: Axes, lines: Sequence[str], above: float) -> None:
    for place, line in enumerate(("Learning rate by param group", *lines)):
        axes.annotate(
            line,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, above + 10 + (len(lines) - place) * 1.4 * _FONT),
            textcoords="offset points",
            fontsize=_FONT if place else 1.3 * _FONT,
            fontweight="normal" if place else "bold",
            color=_PALE if place else _INK,
        )


def _notes(simulation: Simulation) -> Iterator[str]:
    """What the curves do not show."""
    by_trigger: dict[str, list[str]] = {}
    for stage, trigger in simulation.unpredictable.items():
        by_trigger.setdefault(trigger, []).append(stage)
    for trigger, stages in by_trigger.items():
        yield f"not foreseen: {format_names(stages, 6)} ({trigger})"
    if simulation.plateau_of is not None:
        yield f"reduce_on_plateau is drawn as though {simulation.plateau_of} never stopped getting better"
