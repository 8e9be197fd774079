"""The cells as a table, and as a page of documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import lightning as lightning_package
import torch
from rich.table import Table

from .cells import Cell

COLUMNS = ("no stages", "no stages, resumed", "stages", "stages, resumed")

_NOTES = """\
Each callback that Lightning exports is put into a run of four epochs with our factory, scheduler and, under
*stages*, `StagedUnfreeze` and `OptimizerMonitor`; and into the same run with torch alone
(`recipes/compatibility/by_hand.py`): its optimizer classes and schedulers by hand, and a plain callback that thaws
the backbone by `add_param_group`. Two runs for each cell: AdamW under a schedule by step; SGD with accumulation,
clipping and `ReduceLROnPlateau` (without stages: a schedule by epoch). Our callbacks come first in the trainer's
list in one of them, last in the other.

- **exact**: weights, optimizer state, lrs, random generator and position at the end are those of the run by hand,
  bit by bit; also what the callback produced (its curves, the names of its checkpoints). *Resumed*: from each of
  the checkpoints (in the middle of an epoch, at its end, after the thaw, on exceptions in six hooks), the end is
  bitwise that of the run that was not stopped.
- **as Lightning**: a resumed run differs from the uninterrupted one in the same way as by hand.
- **refused**: a `ConfigError` before the first step.
- **not applicable**: Lightning itself raises an error, or there is nothing to resume.
- **silent-wrong**, **error**: there is none; the command exits with 1 if there is.
"""


def build_table(cells: Sequence[Cell]) -> Table:
    """One line for each callback and mode."""
    table = Table("callback", *COLUMNS, title="Lightning's callbacks", title_justify="left")
    for line in _lines(cells):
        table.add_row(*line)
    return table


def count(cells: Sequence[Cell]) -> str:
    """How many cells there are of each result, and from how many comparisons."""
    results = Counter(cell.result.value for cell in cells)
    counts = ", ".join(f"{number} {name}" for name, number in results.most_common())
    num_comparisons = sum(cell.num_comparisons for cell in cells)
    num_wrong = sum(cell.is_failure for cell in cells)
    return f"{len(cells)} cells, {num_comparisons} comparisons: {counts}; silent-wrong or error: {num_wrong}."


def reasons(cells: Sequence[Cell]) -> list[str]:
    """Why cells are not exact."""
    places: dict[str, dict[str, None]] = {}
    for cell in cells:
        for detail in cell.details:
            places.setdefault(f"{cell.result.value}: {detail}", {})[f"{cell.row.name} ({_column(cell)})"] = None
    return [f"{'; '.join(names)}: {reason}" for reason, names in places.items()]


def to_markdown(cells: Sequence[Cell], command: str) -> str:
    """A page of documentation.

    Args:
        cells: of all callbacks.
        command: which wrote it.
    """
    rows = [["callback", *COLUMNS], ["---"] * 5, *_lines(cells)]
    versions = f"lightning {lightning_package.__version__}, torch {torch.__version__.partition('+')[0]}"
    parts = [
        f"# Lightning's callbacks\n\nVersions: {versions}.\n\n```bash\n{command}\n```\n",
        f"{_NOTES}\n{count(cells)}\n",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "\n## Why not exact\n",
        "\n".join(f"- {reason}" for reason in reasons(cells)),
    ]
    return "\n".join(parts) + "\n"


def _lines(cells: Sequence[Cell]) -> list[list[str]]:
    found = {(cell.row.name, _column(cell)): cell.result.value for cell in cells}
    names = dict.fromkeys(cell.row.name for cell in cells)
    return [[name, *(found[name, column] for column in COLUMNS)] for name in names]


def _column(cell: Cell) -> str:
    return COLUMNS[2 * cell.staged + cell.resumed]
