"""The cells as a table, and as a page of documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import lightning as lightning_package
import torch
from rich.table import Table

from .cells import Cell, Result

COLUMNS = ("no stages", "no stages, resumed", "stages", "stages, resumed")

_NOTES = """\
Each callback that Lightning exports is put into a run of four epochs with our factory and scheduler and, under
*stages*, with `StagedUnfreeze` and `OptimizerMonitor`; and into the same run that is written by hand with torch alone
(`recipes/compatibility/by_hand.py`): its optimizers and schedulers, and a plain callback that thaws the backbone by
`add_param_group`. The network has BatchNorm and dropout. Each cell has two of these pairs: AdamW under a schedule by
step, with the thaw inside an epoch; and SGD with accumulation and clipping under `ReduceLROnPlateau` (without stages:
under a schedule by epoch). Our callbacks come first in the trainer's list in one of them, last in the other.

- **exact**: weights, optimizer state, lrs, random generator and position at the end are those of the run by hand,
  bit by bit; also what the callback produced (its curves, the names of its checkpoints). *Resumed*: from each of
  the checkpoints (inside an epoch, at its end, around the thaw, after exceptions in six hooks, those that the callback
  itself has written), the run ends bitwise as the one that was not stopped.
- **as Lightning**: from some of the checkpoints (2 of 9, say), the resumed run does not end as the one that was not
  stopped, because of Lightning: the run by hand does not either, and both resumed runs end bitwise alike. The reason
  is below; a difference without a known reason counts as silent-wrong. All other checkpoints are exact.
- **refused**: a `ConfigError` before the first step. A tuner is refused in a resumed run only.
- **not applicable**: Lightning itself raises an error.
- **silent-wrong**, **error**: there is none; the command exits with 1 if there is.

A tuner (`LearningRateFinder`, `BatchSizeFinder`) changes the run that follows it: the run by hand has none, and starts
with the lr or the batch size that ours has found. Beside a finetuning callback, the optimizer is built over the
parameters that require a gradient, as Lightning asks.
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


def find_reasons(cells: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """`(result, reason, callbacks)` of the cells that are not exact."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for cell in cells:
        for detail in cell.details:
            names.setdefault((cell.result.value, detail), {})[cell.row.name] = None
    return [(result, detail, "; ".join(found)) for (result, detail), found in names.items()]


def to_markdown(cells: Sequence[Cell], command: str) -> str:
    """A page of documentation.

    Args:
        cells: of all callbacks.
        command: which wrote it.
    """
    table = [["callback", *COLUMNS], ["---"] * 5, *_lines(cells)]
    why = [["result", "reason", "callbacks"], ["---"] * 3, *map(list, find_reasons(cells))]
    versions = f"lightning {lightning_package.__version__}, torch {torch.__version__.partition('+')[0]}"
    parts = [
        f"# Lightning's callbacks\n\nVersions: {versions}.\n\n```bash\n{command}\n```\n",
        f"{_NOTES}\n{count(cells)}\n",
        *(f"| {' | '.join(row)} |" for row in table),
        "\n## Why not exact\n",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in why),
    ]
    return "\n".join(parts) + "\n"


def _lines(cells: Sequence[Cell]) -> list[list[str]]:
    found = {(cell.row.name, _column(cell)): _format(cell) for cell in cells}
    names = dict.fromkeys(cell.row.name for cell in cells)
    return [[name, *(found[name, column] for column in COLUMNS)] for name in names]


def _format(cell: Cell) -> str:
    if cell.result is Result.AS_LIGHTNING:
        return f"as Lightning ({cell.num_found} of {cell.num_comparisons})"
    return str(cell.result.value)


def _column(cell: Cell) -> str:
    return COLUMNS[2 * cell.staged + cell.resumed]
