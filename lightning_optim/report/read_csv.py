"""Reads the `metrics.csv` of Lightning's CSVLogger."""

from __future__ import annotations

import csv
from pathlib import Path

from ..core.errors import ConfigError
from ..core.printable import to_printable
from .curves import Log

CSV_FILE = "metrics.csv"
_STEP = "step"


def read_csv(path: Path) -> Log:
    """The curves of a CSV file: a column for each, a row for each time that something was logged, other cells empty.

    Args:
        path: of the file.

    Raises:
        ConfigError: the file cannot be read, or has no column `step`.
    """
    log = Log()
    try:
        # A killed run may leave bytes that are no text in the last line.
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            # Where a machine has stopped, a file may end in zeros, at which the csv module of Python 3.10 stops too.
            rows = csv.reader(line.replace("\0", "\N{REPLACEMENT CHARACTER}") for line in file)
            header = next(rows, [])
            if _STEP not in header:
                raise ConfigError(
                    f"report: {path} has no column {_STEP!r}, so it is not of Lightning's CSVLogger. Type the "
                    f"{CSV_FILE} of a run, or its folder"
                )
            _read_rows(rows, header, to_printable(path.name), log)
    except OSError as error:
        raise ConfigError(f"report: {path} cannot be read: {error.strerror or error}") from error
    except csv.Error as error:
        log.notes.append(f"{to_printable(path.name)}: cannot be read to its end: {error}")
    return log


def _read_rows(rows: csv._reader, header: list[str], name: str, log: Log) -> None:  # type: ignore[name-defined]
    step_index, damaged = header.index(_STEP), 0
    columns = [(index, tag) for index, tag in enumerate(header) if index != step_index]
    for row in rows:
        try:
            step = int(float(row[step_index]))
            found = [(tag, float(row[index])) for index, tag in columns if row[index]]
        except (ValueError, OverflowError, IndexError):
            damaged += 1
            continue
        for tag, value in found:
            log.add(tag, step, value)
    if damaged:
        log.notes.append(f"{name}: {damaged:,} damaged lines are left out")
