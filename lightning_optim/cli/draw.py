"""A simulated run as a figure: one line for each group, with the thaws marked."""

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
_MAX_LEGEND_ROWS = 40
# In points, 72 to an inch.
_FONT_SIZE = 8.0
_LINE_WIDTH = 1.6
_DASH_LENGTH = 5.0
_EPOCH_AXIS_OFFSET = 23.0
# Of a chart below the first one, as fractions of it.
_LOWER_HEIGHT, _LOWER_GAP = 0.4, 0.28
# Labels closer than the first overlap even when rotated; closer than the second, when horizontal.
_MIN_LABEL_DISTANCE, _MIN_LABEL_GAP = 10.0, 10.0
_TICK_STEPS = (1, 2, 5, 10)
# Peaks whose ratio is larger can only be told apart on a log scale.
_MAX_LINEAR_RATIO = 100.0
# Stairs are visible in a short run; in a long one they only double the number of points.
_MAX_STAIR_STEPS = 2000
# viridis has enough distinct colors for this many groups; for more, turbo has, darkened as it is too bright for lines.
_MAX_VIRIDIS_GROUPS = 8
_COLOR_RANGE, _DARKEN = (0.03, 0.9), 0.85
_DARK, _PALE = "#303030", "#8a8a8a"
_STYLE: dict[Any, Any] = {
    "font.size": _FONT_SIZE,
    "text.color": _DARK,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _DARK,
    "axes.linewidth": 0.6,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _DARK,
    "ytick.labelcolor": _DARK,
    "text.parse_math": False,
    "agg.path.chunksize": 20_000,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning-optim",
}


def check_drawable(path: Path) -> None:
    """Check that a figure can be drawn, and written to a path.

    Raises:
        ConfigError: matplotlib is missing, the suffix is unknown, or the folder does not exist.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError('--plot: matplotlib is not installed. Type pip install "lightning-optim[plot]"') from error
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--plot: got {path}. Type a name that ends in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot: there is no folder {path.parent}. Create it first: mkdir -p {path.parent}")


def draw(simulation: Simulation, path: Path, titles: Sequence[str] = ()) -> None:
    """Draw each group's lr over the run to a file, and below it what else the schedule drives.

    Args:
        simulation: of the run.
        path: checked by `check_drawable`; its suffix is the format.
        titles: lines below the title.

    Raises:
        ConfigError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    num_rows = min(len(simulation.curves), _MAX_LEGEND_ROWS)
    with matplotlib.rc_context(_STYLE):
        # Not with pyplot, which keeps every figure in memory and may need a display.
        figure = Figure(figsize=(_WIDTH_IN, max(_HEIGHT_IN, num_rows * _LEGEND_ROW_IN)), dpi=160)
        axes = figure.add_axes((0, 0, 1, 1))
        colors = _choose_colors(len(simulation.curves))
        _draw_curves(axes, simulation, colors)
        _set_scales(axes, simulation)
        for index, key in enumerate(_driven_keys(simulation)):
            bottom = -(index + 1) * (_LOWER_HEIGHT + _LOWER_GAP)
            _draw_values(figure.add_axes((0, bottom, 1, _LOWER_HEIGHT)), simulation, key, colors)
        labels_height = _mark_thaws(axes, simulation)
        _write_titles(axes, [*titles, str(simulation.length), *_notes(simulation)], labels_height)
        # Without a date, so that the same run gives the same file.
        no_date = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        try:
            figure.savefig(path, bbox_inches="tight", pad_inches=0.15, metadata=no_date[path.suffix.lower()])
        except OSError as error:
            raise ConfigError(f"--plot: {path} cannot be written: {error.strerror or error}") from error


def _choose_colors(num_groups: int) -> NDArray[np.float64]:
    """One color for each group: `(num_groups, 4)`."""
    from matplotlib import colormaps

    use_turbo = num_groups > _MAX_VIRIDIS_GROUPS
    colors: NDArray[np.float64] = colormaps["turbo" if use_turbo else "viridis"](np.linspace(*_COLOR_RANGE, num_groups))
    colors[:, :3] *= _DARKEN if use_turbo else 1.0
    return colors


def _draw_curves(axes: Axes, simulation: Simulation, colors: NDArray[np.float64]) -> None:
    from matplotlib.lines import Line2D

    curves = simulation.curves
    drawstyle = _drawstyle(simulation)
    handles = []
    for index, (curve, color) in enumerate(zip(curves, colors, strict=True)):
        is_shared, dashes = _find_overlap(curves, index)
        is_alone = ~is_shared
        # The solid line includes the point where it meets others, and the point where it leaves them.
        is_alone[1:] |= ~is_shared[:-1]
        is_alone[:-1] |= ~is_shared[1:]
        for mask, linestyle in ((is_alone, "solid"), (is_shared, dashes)):
            if np.isfinite(curve.lr[mask]).any():
                lr = np.where(mask, curve.lr, np.nan)
                lr = np.append(lr, lr[-1])  # the lr of the last step holds until the step ends
                axes.plot(lr, color=color, linewidth=_LINE_WIDTH, linestyle=linestyle, drawstyle=drawstyle)
        handles.append(Line2D([], [], color=color, linewidth=_LINE_WIDTH if _is_drawn(curve) else 0.0))
    legend = axes.legend(
        handles,
        ["" for _ in curves],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        handlelength=1.4,
        ncols=math.ceil(len(curves) / _MAX_LEGEND_ROWS),
    )
    for curve, text in zip(curves, legend.get_texts(), strict=True):
        # Not given as a label, which may not begin with an underscore.
        text.set_text(_label(curve, simulation))
        text.set_color(_DARK if _is_drawn(curve) else _PALE)


def _drawstyle(simulation: Simulation) -> Literal["steps-post", "default"]:
    return "steps-post" if simulation.length.total("step") <= _MAX_STAIR_STEPS else "default"


def _driven_keys(simulation: Simulation) -> list[str]:
    return list(dict.fromkeys(key for curve in simulation.curves for key in curve.also))


def _draw_values(axes: Axes, simulation: Simulation, key: str, colors: NDArray[np.float64]) -> None:
    """Draw what the schedule drives besides lr, in the colors of the groups."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for curve, color in zip(simulation.curves, colors, strict=True):
        if key in curve.also:
            values = np.append(curve.also[key], curve.also[key][-1])  # the last step's holds until the step ends
            axes.plot(values, color=color, linewidth=_LINE_WIDTH, drawstyle=_drawstyle(simulation))
    axes.set_xlim(0, simulation.length.total("step"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_TICK_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title(key, loc="left", fontsize=_FONT_SIZE, color=_DARK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_PALE, alpha=0.25, linewidth=0.5)


def _find_overlap(curves: Sequence[Curve], index: int) -> tuple[NDArray[np.bool_], Any]:
    """Where a curve lies on curves drawn before it, and a line style through whose gaps they remain visible."""
    below, above = (_count_equal(curves[index], others) for others in (curves[:index], curves[index + 1 :]))
    return below > 0, (0, ((int(above.max()) + 1) * _DASH_LENGTH, int(below.max()) * _DASH_LENGTH))


def _count_equal(curve: Curve, others: Sequence[Curve]) -> NDArray[np.int64]:
    """The number of other curves with the same lr, by step."""
    count = np.zeros(len(curve.lr), np.int64)
    for other in others:
        count += curve.lr == other.lr
    return count


def _label(curve: Curve, simulation: Simulation) -> str:
    if curve.stage in simulation.unpredictable:
        return f"{curve.group} (unpredictable)"
    if not _is_drawn(curve):
        return f"{curve.group} (not in this run)"
    # A log scale cannot show 0.
    return curve.group if _peak(curve) else f"{curve.group} (lr 0)"


def _is_drawn(curve: Curve) -> bool:
    return bool(np.isfinite(curve.lr).any())


def _peak(curve: Curve) -> float:
    return float(np.nanmax(curve.lr, initial=0.0))


def _set_scales(axes: Axes, simulation: Simulation) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    total, per_epoch = simulation.length.total("step"), simulation.length.steps_per_epoch
    axes.set_xlim(0, total)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_TICK_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    _name_x_axis(axes, 0.0, "optimizer steps")
    axes.set_ylabel("lr", loc="top", rotation="horizontal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_PALE, alpha=0.25, linewidth=0.5)
    peaks = [peak for curve in simulation.curves if (peak := _peak(curve)) > 0]
    if peaks and max(peaks) > _MAX_LINEAR_RATIO * min(peaks):
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(min(peaks) / _MAX_LINEAR_RATIO, max(peaks) * 1.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.05 * max(peaks, default=1.0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"{lr:g}"))
    if per_epoch is not None:
        height = -_EPOCH_AXIS_OFFSET / _size_in_points(axes)[1]
        epochs = axes.secondary_xaxis(height, functions=(_multiply_by(1 / per_epoch), _multiply_by(per_epoch)))
        epochs.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_TICK_STEPS))
        _name_x_axis(axes, height, "epochs")


def _multiply_by(factor: float) -> Any:
    return lambda values: values * factor


def _name_x_axis(axes: Axes, height: float, name: str) -> None:
    """Write an axis' name to the right of its last number, not below it."""
    axes.annotate(
        name,
        (1.0, height),
        xycoords="axes fraction",
        xytext=(30, -11),
        textcoords="offset points",
        annotation_clip=False,
    )


def _mark_thaws(axes: Axes, simulation: Simulation) -> float:
    """Draw dashed lines with the stages' names above them; returns the height of the names in points."""
    stages_at: dict[int, list[str]] = {}
    for stage, step in simulation.thaws.items():
        stages_at.setdefault(step, []).append(stage)
    for step in stages_at:
        axes.axvline(step, color=_PALE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    min_steps = _MIN_LABEL_DISTANCE * simulation.length.total("step") / _size_in_points(axes)[0]
    labels = [
        axes.annotate(
            format_names(names, 3),
            (step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            annotation_clip=False,
        )
        for step, names in _merge_close(stages_at, min_steps)
    ]
    boxes = [label.get_window_extent() for label in labels]
    if any(left.x1 + _MIN_LABEL_GAP > right.x0 for left, right in pairwise(boxes)):
        for label in labels:
            label.set(rotation=45, rotation_mode="anchor")
    return max((_size_in_points(label)[1] for label in labels), default=0.0)


def _merge_close(stages_at: Mapping[int, list[str]], min_steps: float) -> list[tuple[int, list[str]]]:
    """The stages by step, where one less than `min_steps` after the previous label is added to that label."""
    merged: list[tuple[int, list[str]]] = []
    for step, names in sorted(stages_at.items()):
        if merged and step - merged[-1][0] < min_steps:
            merged[-1][1].extend(names)
        else:
            merged.append((step, list(names)))
    return merged


def _size_in_points(artist: Axes | Text) -> tuple[float, float]:
    """Width and height."""
    assert artist.figure is not None
    extent = artist.get_window_extent()
    return extent.width / artist.figure.dpi * 72, extent.height / artist.figure.dpi * 72


def _write_titles(axes: Axes, lines: Sequence[str], labels_height: float) -> None:
    for index, line in enumerate(("Learning rate by param group", *lines)):
        axes.annotate(
            line,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, labels_height + 10 + (len(lines) - index) * 1.4 * _FONT_SIZE),
            textcoords="offset points",
            fontsize=_FONT_SIZE if index else 1.3 * _FONT_SIZE,
            fontweight="normal" if index else "bold",
            color=_PALE if index else _DARK,
        )


def _notes(simulation: Simulation) -> Iterator[str]:
    """What the curves do not show."""
    by_trigger: dict[str, list[str]] = {}
    for stage, trigger in simulation.unpredictable.items():
        by_trigger.setdefault(trigger, []).append(stage)
    for trigger, stages in by_trigger.items():
        yield f"unpredictable: {format_names(stages, 6)} ({trigger})"
    if simulation.plateau_metric is not None:
        yield f"reduce_on_plateau: drawn as if {simulation.plateau_metric} always improved"
