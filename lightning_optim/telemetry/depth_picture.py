"""A history of depth as a picture: a panel for each signal, a row for each layer, steps from left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .depth_history import GRADIENT, LR, RATIO, SIGNALS, DepthHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_TITLES = {
    RATIO: "update ratio: norm of the update / norm of the parameters",
    GRADIENT: "gradient norm",
    LR: "lr",
}
_DPI, _WIDTH_IN = 100, 9.0
_ROW_IN, _MIN_PANEL_IN, _MAX_PANEL_IN = 0.15, 1.1, 4.0
_AROUND_PANEL_IN = 0.42
_AROUND_IN = 0.75
_FONT_SIZE = 8.0
_MAX_LABELS = 28
"""Of a panel: more would overlap."""
_FROZEN, _NOT_FINITE, _DARK = "#d4d4d4", "#e8302a", "#303030"
_COLOR_MAP = "viridis"
_DARKEST_PERCENT, _DARKEST_SHARE = 2.0, 1e-6
"""Of all values, and of the largest: what is below both has the darkest colour, as the end of a schedule may be 0."""
_LOG_RATIO = 5.0
"""Of the largest to the smallest peak of a layer's lr: from here on only a log scale tells the layers apart."""


def draw_depth(history: DepthHistory) -> NDArray[np.uint8]:
    """A history with one or more steps as a picture of shape (height, width, 3).

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    signals = [signal for signal in SIGNALS if history.has(signal)]
    rows = len(history.rows.labels)
    panel_in = min(max(rows * _ROW_IN, _MIN_PANEL_IN), _MAX_PANEL_IN)
    height_in = len(signals) * (panel_in + _AROUND_PANEL_IN) + _AROUND_IN
    # Neither pyplot, which has a state of its own, nor a user's style: every process draws alike.
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "font.size": _FONT_SIZE, "text.color": _DARK}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(len(signals), 1, sharex=True, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=0.09, right=1.04, top=1 - 0.3 / height_in, bottom=0.62 / height_in, hspace=_AROUND_PANEL_IN / panel_in
        )
        for panel, signal in zip(panels, signals, strict=True):
            _draw_panel(panel, history, signal)
        panels[-1].set_xlabel("step")
        figure.text(0.09, 0.1 / height_in, "grey: frozen", color="#757575")
        figure.text(0.18, 0.1 / height_in, "red: not finite", color=_NOT_FINITE)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def _draw_panel(panel: Axes, history: DepthHistory, signal: str) -> None:
    import matplotlib

    values = history.read(signal)
    finite = values[np.isfinite(values) & (values > 0)]
    norm = _choose_norm(finite, values, signal)
    colors = matplotlib.colormaps[_COLOR_MAP].with_extremes(
        bad=_FROZEN, over=_NOT_FINITE, under=matplotlib.colormaps[_COLOR_MAP](0.0)
    )
    drawn = np.ma.masked_invalid(np.where(np.isinf(values), 2 * norm.vmax, np.maximum(values, norm.vmin / 2)))
    edges = [*history.steps, history.last_step + max(1, (history.last_step - history.steps[0]) // len(history.steps))]
    mesh = panel.pcolormesh(edges, np.arange(len(values) + 1), drawn, cmap=colors, norm=norm, rasterized=True)
    panel.set_facecolor(_FROZEN)
    panel.invert_yaxis()  # the input at the top
    stride = -(-len(values) // _MAX_LABELS)
    panel.set_yticks(np.arange(0, len(values), stride) + 0.5, history.rows.labels[::stride])
    panel.tick_params(length=0, axis="y")
    panel.set_title(_TITLES[signal], loc="left", fontsize=_FONT_SIZE + 1)
    for spine in panel.spines.values():
        spine.set_visible(False)
    bar = panel.figure.colorbar(mesh, ax=panel, pad=0.015, aspect=12, fraction=0.12)
    bar.outline.set_visible(False)
    bar.minorticks_off()  # they take a third of the time that the whole picture takes


def _choose_norm(finite: NDArray[np.float64], values: NDArray[np.float64], signal: str) -> Any:
    """Log-scaled, but for lrs that are close to each other."""
    from matplotlib.colors import LogNorm, Normalize

    if not finite.size:
        return Normalize(0.0, 1.0)
    high = float(finite.max())
    low = max(float(np.percentile(finite, _DARKEST_PERCENT)), high * _DARKEST_SHARE)
    if signal == LR:
        peaks = np.fmax.reduce(np.where(values > 0, values, np.nan), axis=1)
        if np.nanmax(peaks) < _LOG_RATIO * np.nanmin(peaks):
            return Normalize(0.0, high)
    return LogNorm(low if low < high else high / 2, high)
