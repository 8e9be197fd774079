"""Read what a run has written for TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.training import fit

Curves = dict[str, list[tuple[int, float]]]
"""By tag: (step, value) of each point."""


def read_curves(folder: Path) -> Curves:
    """Every scalar in the event files below a folder."""
    return _read(folder.rglob("events.*"))


def read_runs(folder: Path) -> dict[str, Curves]:
    """The curves of each run below the folder of a logger, by the run's folder; the logger's own run is `.`."""
    runs = {path.parent for path in folder.rglob("events.*")}
    return {str(run.relative_to(folder)): _read(run.glob("events.*")) for run in sorted(runs)}


def _read(files: Iterable[Path]) -> Curves:
    curves = defaultdict(list)
    for file in sorted(files):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            curves[tag] += [(event.step, event.value) for event in events.Scalars(tag)]
    return curves


def read_events(folder: Path) -> EventAccumulator:
    """The first event file below a folder."""
    return EventAccumulator(str(next(folder.rglob("events.*")))).Reload()


def read_texts(folder: Path, tag: str) -> list[tuple[int, str]]:
    """(step, text) of each text under a tag."""
    events = read_events(folder)
    if f"{tag}/text_summary" not in events.Tags()["tensors"]:
        return []
    found = events.Tensors(f"{tag}/text_summary")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found]


def fit_with_events(folder: Path, module: Any, *callbacks: Any, **arguments: Any) -> Curves:
    """Fit with a TensorBoard logger that logs every step; returns its curves."""
    fit(module, folder, *callbacks, **{"logger": TensorBoardLogger(folder), "log_every_n_steps": 1, **arguments})
    return read_curves(folder)
