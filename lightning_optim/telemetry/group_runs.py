"""`GroupRuns`: each param group as a TensorBoard run of its own, so that one chart shows the curves of all groups."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .run_writer import RunTags, RunWriter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MAX_RUNS = 64
"""Of one logger: each has a file. The curves of further groups stay in the logger's own run, with the flat tags."""
_MAX_SPLITS = 128
_NOT_IN_FOLDERS = re.compile(r"[^\w.-]")
_MAX_BYTES = 140
"""Of a folder's name: file systems have at most 255, encrypted ones 143."""
_NUMBER = "-2"
"""Appended to a folder's name, once or more, where another group has that folder."""


class Curve(NamedTuple):
    """Where a value stands if its group is a run of its own."""

    folder: str
    """Below the logger's."""
    tag: str


class _Split(NamedTuple):
    """How the values of a step are divided among the runs of a logger."""

    runs: tuple[RunTags, ...]
    rest: tuple[str, ...]
    """The tags that stay in the logger's own run."""


def group_curve(root: str, signal: str, group: str) -> Curve:
    """Where a signal of a group stands, such as `optim/lr` in the run `optim/head`."""
    name = _NOT_IN_FOLDERS.sub("_", group).encode()[:_MAX_BYTES].decode(errors="ignore")
    return Curve(f"{root}/{name if name.strip('.') else '_' * len(name)}", f"{root}/{signal}")


def number_folder(folder: str) -> str:
    """The next folder to try where another group has this one."""
    return f"{folder}{_NUMBER}"


def is_folder_of(group: str, root: str, folder: str) -> bool:
    """Whether the runs of a group may be in a folder, numbered or not."""
    own = group_curve(root, "", group).folder
    return folder.startswith(own) and not folder.removeprefix(own).replace(_NUMBER, "")


class GroupRuns:
    """The runs of all groups below the folders of all TensorBoard loggers."""

    def __init__(self) -> None:
        self._purge_steps: dict[str, int | None] = {}
        self._writers: dict[str, RunWriter] = {}
        """By logger's folder, as everything below."""
        self._folders: dict[str, dict[str, str]] = {}
        self._splits: dict[tuple[str, tuple[str, ...]], _Split] = {}

    def purge(self, log_dir: str, step: int) -> None:
        """Let TensorBoard hide what earlier files have from a step on: once, as a logger's own writer does."""
        self._purge_steps.setdefault(log_dir, step)

    def write(
        self, writer: SummaryWriter, values: Mapping[str, float], curves: Mapping[str, Curve], step: int
    ) -> dict[str, float]:
        """Write the values of groups to their runs.

        Args:
            writer: the logger's.
            values: by the tag that they have in the logger's own run.
            curves: where they stand instead, by that tag.
            step: of the logger.

        Returns:
            The values that belong to the logger's own run.

        Raises:
            OSError: the files could not be written.
        """
        log_dir, tags = writer.log_dir, tuple(values)
        split = self._splits.get((log_dir, tags))
        if split is None:
            if len(self._splits) >= _MAX_SPLITS:
                self._splits.clear()
            split = self._splits[log_dir, tags] = self._split(log_dir, tags, curves)
        if split.runs:
            self._writer_below(writer).write(split.runs, list(values.values()), step)
        return {tag: values[tag] for tag in split.rest}

    def flush(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: the files could not be written.
        """
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write what is left, and close all files.

        Raises:
            OSError: the files could not be written.
        """
        writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            writer.close()

    def _split(self, log_dir: str, tags: tuple[str, ...], curves: Mapping[str, Curve]) -> _Split:
        runs: dict[str, list[tuple[str, int]]] = {}
        rest = []
        for index, tag in enumerate(tags):
            curve = curves.get(tag)
            folder = self._find_folder(log_dir, curve.folder) if curve else None
            if curve is None or folder is None:
                rest.append(tag)
            else:
                runs.setdefault(folder, []).append((curve.tag, index))
        of_runs = (
            RunTags(folder, tuple(tag for tag, _ in pairs), tuple(index for _, index in pairs))
            for folder, pairs in runs.items()
        )
        return _Split(tuple(of_runs), tuple(rest))

    def _find_folder(self, log_dir: str, name: str) -> str | None:
        """The folder of a run below that of a logger; None if there are too many."""
        folders = self._folders.setdefault(log_dir, {})
        if name not in folders and len(folders) < MAX_RUNS:
            folders[name] = os.path.join(log_dir, name)
        return folders.get(name)

    def _writer_below(self, writer: Any) -> RunWriter:
        """The writer of all runs below the folder of a logger; it has the options of the logger's own."""
        log_dir = writer.log_dir
        if log_dir not in self._writers:
            purge_step = self._purge_steps.get(log_dir)
            self._purge_steps[log_dir] = None  # what a second fit adds to the same folder hides nothing
            self._writers[log_dir] = RunWriter(writer.flush_secs, writer.filename_suffix, purge_step)
        return self._writers[log_dir]
