"""Writes what a logger would have written, and builds curves, for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_optim.report.curves import Curve, OptimizerCurves

Points = Iterable[tuple[int, float]]


def write_events(
    folder: Path,
    points: Mapping[str, Points],
    *,
    texts: Mapping[str, Sequence[tuple[int, str]]] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write one more event file to a folder, as the monitor does; returns its path.

    Args:
        folder: of the run.
        points: (step, value) by tag.
        texts: (step, Markdown) by tag.
        hyperparameters: as a logger's hyperparameter page shows them.
        options: of the SummaryWriter.
    """
    before = set(folder.glob("events.*"))
    # A number that increases: file names begin with the second in which they were created.
    with SummaryWriter(str(folder), filename_suffix=f".{len(before)}", **options) as writer:
        if hyperparameters:
            for summary in hparams(dict(hyperparameters), {}):
                writer._get_file_writer().add_summary(summary)
        for tag, values in points.items():
            for step, value in values:
                writer.add_scalar(tag, value, step)
        for tag, lines in (texts or {}).items():
            for step, text in lines:
                writer.add_text(tag, text, step)
    (path,) = set(folder.glob("events.*")) - before
    return path


def curve(values: Iterable[float], steps: Iterable[int] | None = None) -> Curve:
    """A curve, by default from step 0 on."""
    array = np.array(list(values), np.float64)
    return Curve(np.arange(len(array)) if steps is None else np.array(list(steps)), array)


def optimizer_curves(
    values: Mapping[str, Mapping[str, Iterable[float]]], steps: Iterable[int] | None = None, **fields: Any
) -> OptimizerCurves:
    """Curves of an optimizer.

    Args:
        values: by signal and group; `all` is over all groups.
        steps: of all curves; None: from 0 on.
        fields: of `OptimizerCurves`.
    """
    steps = None if steps is None else list(steps)
    signals = {name: {group: curve(it, steps) for group, it in groups.items()} for name, groups in values.items()}
    groups = dict.fromkeys(group for by_group in signals.values() for group in by_group if group != "all")
    return OptimizerCurves(root="optim", groups=tuple(groups), signals=signals, **fields)
