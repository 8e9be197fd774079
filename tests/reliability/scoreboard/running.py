"""Runs cells, silently, each in a folder of its own."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

from tests.reliability.scoreboard.outcome import Cell, Outcome, judge


def run_cells(cells: Iterable[Cell]) -> list[tuple[Cell, Outcome]]:
    """Each cell with its outcome."""
    return [(cell, run_cell(cell)) for cell in cells]


def run_cell(cell: Cell) -> Outcome:
    """Run one cell."""
    own = logging.getLogger("lightning_optim")
    level = own.level
    own.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return judge(cell, Path(folder))
    finally:
        own.setLevel(level)
