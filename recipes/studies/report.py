"""The study as a table and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .design import FULL
from .records import Measured
from .statistics import mean_interval, paired_difference


@dataclass(frozen=True)
class Cell:
    """An arm with an optimizer."""

    arm: str
    optimizer: str


@dataclass(frozen=True)
class Final:
    """The final runs of a cell, one for each seed."""

    lr: float
    runs: Sequence[Measured]

    @property
    def accuracies(self) -> list[float]:
        return [run.accuracy for run in self.runs]


def format_table(finals: Mapping[Cell, Final]) -> str:
    """A table in Markdown, arms by optimizer."""
    columns = ["optimizer", "arm", "lr", "test accuracy", "95 % interval", f"minus {FULL!r}", "CPU s", "peak MB"]
    lines = [f"| {' | '.join(columns)} |", f"| --- | --- |{' ---: |' * (len(columns) - 2)}"]
    for cell, final in finals.items():
        interval = mean_interval(final.accuracies)
        peaks = [run.peak_mb for run in final.runs if run.peak_mb is not None]
        cells = [
            cell.optimizer,
            cell.arm,
            f"{final.lr:g}",
            f"{interval.mean:.3f}",
            f"{interval.low:.3f} to {interval.high:.3f}",
            _format_difference(cell, finals),
            f"{statistics.median(run.cpu_s for run in final.runs):.1f}",
            f"{statistics.median(peaks):.0f}" if peaks else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(finals: Mapping[Cell, Final], title: str, file: Path) -> None:
    """A picture of the means and intervals, with a panel for each optimizer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    optimizers, arms = (
        list(dict.fromkeys(names)) for names in zip(*((c.optimizer, c.arm) for c in finals), strict=True)
    )
    figure, panels = pyplot.subplots(
        1, len(optimizers), figsize=(11, 0.42 * len(arms) + 1.1), sharex=True, squeeze=False
    )
    for panel, optimizer in zip(panels[0], optimizers, strict=True):
        for row, arm in enumerate(arms):
            if (final := finals.get(Cell(arm, optimizer))) is not None:
                interval = mean_interval(final.accuracies)
                panel.plot(final.accuracies, [row] * len(final.runs), ".", color="0.75", markersize=4)
                panel.errorbar(
                    interval.mean, row, xerr=interval.half_width, fmt="o", color="C0", capsize=3, markersize=5
                )
        panel.set_title(optimizer, fontsize=10)
        panel.set_yticks(range(len(arms)), arms if panel is panels[0][0] else [""] * len(arms))
        panel.set_ylim(len(arms) - 0.5, -0.5)
        panel.grid(axis="x", color="0.9")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.supxlabel(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _format_difference(cell: Cell, finals: Mapping[Cell, Final]) -> str:
    full = finals.get(Cell(FULL, cell.optimizer))
    if full is None or cell.arm == FULL:
        return ""
    difference = paired_difference(finals[cell].accuracies, full.accuracies)
    return f"{difference.mean:+.3f} ± {difference.half_width:.3f}"
