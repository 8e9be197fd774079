"""What a run has written for TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.training import fit

Curves = dict[str, list[tuple[int, float]]]


def curves_of(folder: Path) -> Curves:
    """Every scalar in the event files below a folder, by tag."""
    curves = defaultdict(list)
    for file in sorted(folder.rglob("events.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            curves[tag] += [(event.step, event.value) for event in events.Scalars(tag)]
    return curves


def texts_of(folder: Path, tag: str) -> list[tuple[int, str]]:
    """The texts under a tag, with their steps."""
    events = EventAccumulator(str(next(folder.rglob("events.*")))).Reload()
    if f"{tag}/text_summary" not in events.Tags()["tensors"]:
        return []
    found = events.Tensors(f"{tag}/text_summary")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found]


def fit_with_events(folder: Path, module: Any, *callbacks: Any, **arguments: Any) -> Curves:
    """Fit, logging each step."""
    fit(module, folder, *callbacks, **{"logger": TensorBoardLogger(folder), "log_every_n_steps": 1, **arguments})
    return curves_of(folder)
