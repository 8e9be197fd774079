"""Which runs a path on the command line means, and the files of each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import ConfigError, format_names
from ..core.printable import to_printable
from ..telemetry.tags import ROOT
from .read_csv import CSV_FILE
from .read_events import EVENT_FILES, sort_event_files

MAX_RUNS = 16
"""In one page."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of one run."""

    name: str
    given: Path
    """The path on the command line."""
    folder: Path
    events: tuple[Path, ...] = ()
    group_events: dict[tuple[str, str], list[Path]] = field(default_factory=dict)
    """By root and folder name: the event files of groups that are runs of their own."""
    csv: Path | None = None
    hparams: Path | None = None
    """Lightning's `hparams.yaml`."""

    @property
    def source(self) -> str:
        """The files in words."""
        if self.csv is not None:
            return CSV_FILE if self.csv.name == CSV_FILE else to_printable(self.csv.name)
        num_files = len(self.events) + sum(map(len, self.group_events.values()))
        return f"{num_files} event file{'s' if num_files != 1 else ''}"


def find_runs(paths: Sequence[Path]) -> list[RunFiles]:
    """The runs below each path, in the order of the paths, then by name, numbers by value.

    Args:
        paths: files, or folders: of a run, or with runs anywhere below them.

    Raises:
        ConfigError: a path does not exist, has no run, or the runs are too many for a page.
    """
    found: dict[Path, RunFiles] = {}
    for path in paths:
        for run in _find_below(path):
            found.setdefault((path if path.is_file() else run.folder).resolve(), run)
    if len(found) > MAX_RUNS:
        names = format_names((to_printable(str(run.folder)) for run in list(found.values())[-3:]), 3)
        raise ConfigError(
            f"report: there are {len(found)} runs, and a page has {MAX_RUNS} at most. Type the folders of those to "
            f"compare, such as {names}"
        )
    return list(found.values())


def _find_below(path: Path) -> list[RunFiles]:
    if not path.exists():
        raise ConfigError(
            f"report: {to_printable(str(path))} does not exist. Type the folder of a run, such as {_example(path)}"
        )
    if path.is_file():
        return [_read_file_name(path)]
    folders = _walk(path)
    if not folders:
        raise ConfigError(
            f"report: no event files ({EVENT_FILES}) and no {CSV_FILE} below {to_printable(str(path))}. Type the "
            "folder of TensorBoardLogger or CSVLogger: save_dir, or its name and version below it"
        )
    if set(folders) == {path} and _is_group_folder(path) and _has_files(path.parent.parent):
        raise ConfigError(
            f"report: {to_printable(str(path))} has the curves of one group. Type the folder of the run: "
            f"{to_printable(str(path.parent.parent))}"
        )
    runs = [folder for folder in folders if not (_is_group_folder(folder) and folder.parent.parent in folders)]
    return [_collect(folder, path, folders) for folder in sorted(runs, key=_natural_key)]


def _read_file_name(path: Path) -> RunFiles:
    hparams = path.parent / "hparams.yaml"
    csv = path if path.suffix == ".csv" else None
    if csv or "tfevents" in path.name:
        return RunFiles(
            name=to_printable(str(path)),
            given=path,
            folder=path.parent,
            events=() if csv else (path,),
            csv=csv,
            hparams=hparams if hparams.is_file() else None,
        )
    raise ConfigError(
        f"report: {to_printable(str(path))} is neither an event file ({EVENT_FILES}) nor a {CSV_FILE}. Type one, or "
        "the folder of a run"
    )


def _walk(path: Path) -> dict[Path, list[str]]:
    """All folders that have event files or metrics, and the names of these files."""
    folders = {}
    for folder, subfolders, names in os.walk(path, followlinks=False):
        subfolders[:] = [name for name in subfolders if name not in ("checkpoints", ".git")]
        wanted = [name for name in names if name == CSV_FILE or Path(name).match(EVENT_FILES)]
        if wanted:
            folders[Path(folder)] = wanted
    return folders


def _has_files(path: Path) -> bool:
    return any(path.glob(EVENT_FILES))


def _is_group_folder(folder: Path) -> bool:
    return ROOT.fullmatch(folder.parent.name) is not None


def _collect(folder: Path, given: Path, folders: dict[Path, list[str]]) -> RunFiles:
    hparams = folder / "hparams.yaml"
    events = _event_files(folder, folders[folder])
    groups = {
        (other.parent.name, other.name): _event_files(other, names)
        for other, names in sorted(folders.items(), key=lambda item: _natural_key(item[0]))
        if other.parent.parent == folder and _is_group_folder(other)
    }
    return RunFiles(
        name=to_printable(str(folder)),
        given=given,
        folder=folder,
        events=tuple(events),
        group_events=groups if events else {},
        csv=None if events else folder / CSV_FILE,
        hparams=hparams if hparams.is_file() else None,
    )


def _event_files(folder: Path, names: Sequence[str]) -> list[Path]:
    return sort_event_files(folder / name for name in names if name != CSV_FILE)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _example(path: Path) -> str:
    """The nearest folder that exists, or Lightning's default."""
    return (
        "lightning_logs/version_0" if not path.parent.is_dir() else f"one of those in {to_printable(str(path.parent))}"
    )
