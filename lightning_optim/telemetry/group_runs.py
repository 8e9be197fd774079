"""`GroupRuns`: each param group as a TensorBoard run of its own, so that one chart shows the curves of all groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MAX_RUNS = 64
"""Of one logger: each has a file and a thread. The curves of further groups stay in the logger's own run."""
_NOT_IN_FOLDERS = re.compile(r"[^\w.-]")


class Curve(NamedTuple):
    """Where a value stands if its group is a run of its own."""

    folder: str
    """Below the logger's."""
    tag: str


def group_curve(root: str, signal: str, group: str) -> Curve:
    """Where a signal of a group stands, such as `optim/lr` in the run `optim/head`."""
    name = _NOT_IN_FOLDERS.sub("_", group)
    return Curve(f"{root}/{name if name.strip('.') else '_' * len(name)}", f"{root}/{signal}")


class GroupRuns:
    """The writers of all groups, each created with its first value."""

    def __init__(self) -> None:
        self._writers: dict[tuple[str, str], SummaryWriter] = {}

    def split(
        self, writer: SummaryWriter, values: Mapping[str, float], curves: Mapping[str, Curve]
    ) -> dict[SummaryWriter, dict[str, float]]:
        """The values of each run.

        Args:
            writer: the logger's.
            values: by the tag that they have in the logger's own run.
            curves: where they stand instead, by that tag; the others stay.
        """
        split: dict[SummaryWriter, dict[str, float]] = {}
        for tag, value in values.items():
            curve = curves.get(tag)
            run = self._find(writer, curve.folder) if curve else None
            if curve is None or run is None:
                split.setdefault(writer, {})[tag] = value
            else:
                split.setdefault(run, {})[curve.tag] = value
        return split

    def close(self) -> None:
        """Write what is left, and close all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _find(self, writer: Any, folder: str) -> SummaryWriter | None:
        """The writer of a run below that of a logger; None if there are too many."""
        key = writer.log_dir, folder
        if key not in self._writers:
            if sum(log_dir == writer.log_dir for log_dir, _ in self._writers) >= MAX_RUNS:
                return None
            self._writers[key] = type(writer)(str(Path(writer.log_dir, folder)))
        return self._writers[key]
