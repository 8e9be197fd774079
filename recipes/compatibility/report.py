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
Each callback that Lightning exports runs in two versions of one training of four epochs. The first version uses our
factory and scheduler and, under *stages*, `StagedUnfreeze` and `OptimizerMonitor`. The second one is written by hand
with torch alone (`recipes/compatibility/by_hand.py`): torch's optimizers and schedulers, and a plain callback that
thaws the backbone by `add_param_group`. The network has BatchNorm and dropout. Each cell compares two such pairs of
runs: AdamW under a schedule by step, with the thaw inside an epoch; and SGD with accumulation and clipping under
`ReduceLROnPlateau` (without stages: under a schedule by epoch). In one of the pairs, our callbacks come first in the
trainer's list; in the other one, they come last.

- **exact**: weights, optimizer state, lrs, random generator and position at the end are those of the run by hand,
  bit by bit. So is what the callback produces (its curves, the names of its checkpoints). *Resumed*: from each of the
  checkpoints, the run ends bitwise as the uninterrupted one. Checkpoints are saved inside an epoch, at its end, around
  the thaw, after exceptions in six hooks, and by the callback itself.
- **as Lightning**: from some of the checkpoints (for example 2 of 9), the resumed run does not end as the uninterrupted
  one, because of Lightning: the run by hand does not either, and both resumed runs end bitwise alike. The table below
  has the reason; a difference without a known reason counts as silent-wrong. All other checkpoints are exact.
- **refused**: a `ConfigError` before the first step. A tuner is refused in a resumed run only.
- **not applicable**: Lightning itself raises an error.
- **silent-wrong**, **error**: no cell has these; if one does, the command exits with status 1.

A tuner (`LearningRateFinder`, `BatchSizeFinder`) changes the run that follows it. The run by hand has no tuner: it
starts with the lr or the batch size that the tuner has found in ours. With a finetuning callback, the optimizer gets
only the parameters that require a gradient, as Lightning asks.
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
