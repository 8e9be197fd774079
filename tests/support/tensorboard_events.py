"""Read what a run has written for TensorBoard."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_optim.telemetry.tags import is_setting
from tests.support.training import fit

Curves = dict[str, list[tuple[int, float]]]
"""By tag: (step, value) of each point."""


_GROUP_RUN = re.compile(r"(?P<root>optim(_[^/]+)?)/(?P<group>[^/]+)$")


def read_curves(folder: Path) -> Curves:
    """Every scalar in the event files below a folder; where a group is a run of its own, under its flat tags."""
    curves: Curves = defaultdict(list)
    for run in sorted({path.parent for path in folder.rglob("events.*")}):
        group = _GROUP_RUN.search(run.as_posix())
        for tag, points in _read(run.glob("events.*")).items():
            is_of_group = group and tag.startswith(f"{group['root']}/")
            curves[f"{tag}/{group['group']}" if group and is_of_group else tag] += points
    return dict(curves)


def at_steps(points: list[tuple[int, float]], steps: Iterable[int]) -> list[tuple[int, float]]:
    """The value at each step of a curve that has points only where it changes."""
    return [(step, [value for at, value in points if at <= step][-1]) for step in steps]


def from_step(curves: Curves, start: int) -> Curves:
    """What a run that starts at a step has of curves: a setting has a point there, which it need not have had."""
    found = {tag: [point for point in points if point[0] >= start] for tag, points in curves.items()}
    for tag, points in curves.items():
        earlier = [value for step, value in points if step <= start]
        if earlier and is_setting(tag.split("/", 1)[1].rpartition("/")[0]) and found[tag][:1] != [(start, earlier[-1])]:
            found[tag].insert(0, (start, earlier[-1]))
    return {tag: points for tag, points in found.items() if points}


def read_runs(folder: Path) -> dict[str, Curves]:
    """The curves of each run below the folder of a logger, by the run's folder; the logger's own run is `.`."""
    runs = {path.parent for path in folder.rglob("events.*")}
    return {str(run.relative_to(folder)): _read(run.glob("events.*")) for run in sorted(runs)}


def _read(files: Iterable[Path]) -> Curves:
    curves = defaultdict(list)
    for file in sorted(files, key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)]):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            curves[tag] += [(event.step, event.value) for event in events.Scalars(tag)]
    return curves


def read_events(folder: Path) -> EventAccumulator:
    """The first event file below a folder, of those of a logger's own run."""
    files = (path for path in folder.rglob("events.*") if not _GROUP_RUN.search(path.parent.as_posix()))
    return EventAccumulator(str(min(files))).Reload()


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
