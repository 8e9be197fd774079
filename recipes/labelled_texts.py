"""Texts with labels in three splits: docstrings of the standard library, or a CSV of yours."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_optim import ConfigError
from lightning_optim.core.errors import did_you_mean

from .docstrings import TOPICS, read_docstrings
from .split_data import split_by_label

KEY = "task.csv"
COLUMNS = ("text", "label")


def read_texts(csv_file: str | None) -> dict[str, list[tuple[str, str]]]:
    """Split → `(text, label)`: of the CSV, or of docstrings and their topics where there is none.

    No text is in two splits.
    """
    if csv_file is None:
        return {split: [(text, topic) for text, topic, _ in rows] for split, rows in read_docstrings().items()}
    rows = read_csv(Path(csv_file))
    splits = split_by_label([label for _, label in rows], KEY)
    return {split: [rows[index] for index in indices] for split, indices in splits.items()}


def count_labels(csv_file: str | None) -> int:
    """The number of labels, which is how many outputs the head has."""
    return len(TOPICS) if csv_file is None else len({label for _, label in read_csv(Path(csv_file))})


def read_csv(file: Path) -> list[tuple[str, str]]:
    """`(text, label)` of each row; a text that occurs again is left out.

    Raises:
        ConfigError: there is no such file, it is not a CSV in UTF-8, a column is missing, or a row is not complete.
    """
    if not file.is_file():
        raise ConfigError(f"{KEY}: there is no file {file}. Type {KEY}=FILE, with the columns {_join(COLUMNS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            _check_columns(file, reader.fieldnames)
            labels: dict[str, str] = {}
            for row in reader:
                text, label = ((row[column] or "").strip() for column in COLUMNS)
                if not text or not label:
                    raise ConfigError(f"{KEY}: {file}, line {reader.line_num}: text and label must not be empty")
                if labels.setdefault(text, label) != label:
                    raise ConfigError(
                        f"{KEY}: {file}, line {reader.line_num}: the text has the label {labels[text]} in another row, "
                        f"and {label} here. Remove one of them"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{KEY}: {file} is not a CSV file in UTF-8: {error}. Save it as one") from error
    if not labels:
        raise ConfigError(f"{KEY}: {file} has no rows below its header. Add a row for each text")
    return list(labels.items())


def _check_columns(file: Path, names: object) -> None:
    if not names:
        raise ConfigError(f"{KEY}: {file} is empty. Its first line must be {','.join(COLUMNS)}")
    assert isinstance(names, list)
    for column in COLUMNS:
        if column not in names:
            raise ConfigError(
                f"{KEY}: {file} has no column {column}.{did_you_mean(column, names)} It has {_join(names)}. "
                f"Rename the columns to {_join(COLUMNS)} in its first line"
            )


def _join(names: object) -> str:
    assert isinstance(names, (list, tuple))
    return " and ".join(map(str, names)) if len(names) < 3 else ", ".join(map(str, names))
