"""The cells as a table, and as a page of documentation."""

# lines of a Markdown table

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning
import torch
from rich.table import Table

from .cells import MOMENTS, Cell, Result
from .parts import PARTS

_NOTES = """\
A network with a backbone and a head is trained for eight optimizer steps on the CPU, with gloo. Each cell has two
results: of the run, and of the same run resumed from a checkpoint (with stages: from the step before the thaw, at the
thaw and from the step after it).

- **exact**: the weights and lrs after each step, on each rank, are bitwise those of a loop that is written with torch
  alone under the same wrapper (`recipes/strategies/by_hand.py`): its own param groups, `CosineAnnealingLR`, AdamW and
  Muon (for shards ours, as torch's has no bits to agree with), and for stages `add_param_group` and a new wrapper at
  the thaw. The monitor's norms of each gradient, parameter,
  update and state buffer are those of the gathered tensors, up to 1e-5. A resumed run is bitwise as one that was not.
- **refused**: a `ConfigError` before the first step, which says what to type.
- **not applicable**: Lightning alone does not do it.
- **fails**, **wrong**: there is none; the command exits with 1 if there is.

The factory is AdamW with a cosine. The rules exempt biases and norms from decay, give the backbone's matrices to Muon,
and the head a smaller lr. The monitor measures the run with rules; the stages thaw the backbone of the run with rules
after three steps.
"""


_OTHERS = """\
## Tuners and exceptions on two ranks

`tests/callbacks/test_tuners_and_stops_on_ranks.py` holds this, with gloo, under `ddp` and FSDP2:

- `LearningRateFinder` among the callbacks, with rules and a cosine, with and without stages: exact. The run is as if
  the suggested lr were configured, the same on every rank. `BatchSizeFinder`: not applicable, Lightning refuses it on
  several ranks.
- An exception on every rank, with stages and a plateau, and a checkpoint that Lightning writes because of it
  (`OnExceptionCheckpoint`, `ModelCheckpoint(save_on_exception=True)`): exact. The resumed run ends bitwise as one that
  was not stopped, also where a stage has just thawed.
- An exception on rank zero alone: as without this library, a checkpoint is written, and rank zero then waits for the
  others. It has rank zero's part of metrics that are reduced over ranks, and a warning says so. On another rank alone,
  no checkpoint is written.

Communication hooks are registered on the CPU for this table: Lightning registers them on GPUs only. Under tensor
parallelism, torch's `adafactor`, `rprop` and `lbfgs` raise an error of torch's.
"""


def build_table(cells: Sequence[Cell]) -> Table:
    """One line for each strategy."""
    table = Table(title="Strategies", title_justify="left")
    for header in _header():
        table.add_column(header, overflow="fold")
    for line in _lines(cells):
        table.add_row(*line)
    return table


def count(cells: Sequence[Cell]) -> dict[str, int]:
    """How many cells there are of each result."""
    return {result.value: sum(cell.result is result for cell in cells) for result in Result}


def find_reasons(cells: Sequence[Cell]) -> dict[str, str]:
    """By strategies and parts: why they are not exact."""
    places: dict[str, dict[str, dict[str, list[str]]]] = {}
    for cell in cells:
        if cell.detail:
            reason = f"{cell.result.value}: {cell.detail}"
            places.setdefault(reason, {}).setdefault(cell.row, {}).setdefault(cell.part, []).append(cell.moment)
    return {
        "; ".join(f"{_name(row)} ({_format_parts(parts)})" for row, parts in rows.items()): reason
        for reason, rows in places.items()
    }


def _format_parts(parts: Mapping[str, Sequence[str]]) -> str:
    """`rules, stages resumed`."""
    if len(parts) == len(PARTS) and all(len(moments) == len(MOMENTS) for moments in parts.values()):
        return "all"
    labels = {MOMENTS: "", MOMENTS[:1]: " run", MOMENTS[1:]: " resumed"}
    return ", ".join(f"{part}{labels[tuple(moments)]}" for part, moments in parts.items())


def to_markdown(cells: Sequence[Cell], command: str) -> str:
    """A page of documentation.

    Args:
        cells: of all strategies.
        command: which wrote it.
    """
    rows = [_header(), ["---"] * len(_header()), *_lines(cells)]
    counts = ", ".join(f"{number} {name}" for name, number in count(cells).items())
    lines = [
        "# Strategies",
        "",
        f"Versions: lightning {lightning.__version__}, torch {torch.__version__.partition('+')[0]}.",
        "",
        "```bash",
        command,
        "```",
        "",
        _NOTES,
        f"{len(cells)} cells: {counts}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "## Why not",
        "",
        *(f"- {places}: {reason}" for places, reason in find_reasons(cells).items()),
        "",
        _OTHERS,
    ]
    return "\n".join(lines)


def _header() -> list[str]:
    return ["strategy", *PARTS]


def _lines(cells: Sequence[Cell]) -> list[list[str]]:
    found: Mapping[tuple[str, str, str], Cell] = {(cell.row, cell.part, cell.moment): cell for cell in cells}
    return [
        [_name(row), *(_format([found[row, part, m] for m in MOMENTS]) for part in PARTS)]
        for row in dict.fromkeys(cell.row for cell in cells)
    ]


def _name(row: str) -> str:
    """What a user types, as code; a name with an explanation, as it is."""
    return row if ":" in row or "), " in row or ", " in row.partition("(")[0] else f"`{row}`"


def _format(cells: Sequence[Cell]) -> str:
    results = [cell.result.value for cell in cells]
    return results[0] if len(set(results)) == 1 else ", ".join(results)
