"""`inspect`: what the optimizers in a checkpoint hold, and the difference of two checkpoints; nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from ..core.errors import format_names
from .checkpoint_compare import Comparison, compare, pair
from .checkpoint_compare import Row as Difference
from .checkpoint_reader import read
from .checkpoint_report import Report, Row, report

_MIB = 2**20
# A run that has diverged has them everywhere; the first are those nearest the input.
_MOST_LINES = 50
_UNBOUNDED = 10_000
_DIFFERENCE_COLUMNS = ("group", "equal", "differing", "step", "relative", "largest", "in")


def print_report(console: Console, path: Path) -> None:
    """The groups of each optimizer with the norms of their state, and what is not finite in it.

    Args:
        console: where to.
        path: the checkpoint.

    Raises:
        ConfigError: as `inspection.saved.read`.
    """
    for saved in read(path):
        found = report(saved)
        _print_table(console, found.key, _columns(found), [_cells(found, row) for row in found.rows], total=True)
        lines = [f"{it.parameter}: {it.buffer} {it.count:,} of {it.size:,} not finite" for it in found.nonfinite]
        _say(console, _cut(lines) or ["no non-finite values"])


def print_comparison(console: Console, path: Path, other: Path) -> None:
    """The difference of two checkpoints, optimizer by optimizer.

    Args:
        console: where to.
        path: its groups are the rows.
        other: what it is compared with.

    Raises:
        ConfigError: as `inspection.saved.read`.
    """
    for first, second in pair(read(path), read(other)):
        if first is None or second is None:
            there, where = (first, path) if first is not None else (second, other)
            assert there is not None
            _say(console, [f"{there.key}: only in {where}"])
            continue
        found = compare(first, second)
        title = found.keys[0] if found.keys[0] == found.keys[1] else " and ".join(found.keys)
        if found.same:
            _say(console, [f"{title}: the same: {found.num_equal:,} state tensors, bitwise"])
            continue
        rows = [_difference_cells(row) for row in found.rows]
        _print_table(console, title, _DIFFERENCE_COLUMNS, rows, total=False)
        _say(console, list(_differences(found, path, other)))


def _columns(found: Report) -> list[str]:
    algorithm = ["algorithm"] if any(row.algorithm for row in found.rows) else []
    return ["group", *algorithm, "tensors", "parameters", "lr", "weight_decay", "step", *found.buffers, "state MiB"]


def _cells(found: Report, row: Row) -> list[str]:
    parameters = f"{row.num_parameters:,}"
    if row.num_unknown:
        parameters = f"≥ {parameters}" if row.num_parameters else ""
    values = {
        "group": row.group,
        "algorithm": row.algorithm or "",
        "tensors": f"{row.num_tensors:,}",
        "parameters": parameters,
        "lr": _number(row.lr),
        "weight_decay": _number(row.weight_decay),
        "step": _number(row.step),
        "state MiB": f"{row.num_bytes / _MIB:.3g}",
    }
    return [_number(row.norms.get(name)) if name in found.buffers else values[name] for name in _columns(found)]


def _difference_cells(row: Difference) -> list[str]:
    step = "" if row.step is None else " → ".join(_number(side) or "nothing" for side in row.step)
    counts = [f"{row.num_equal:,}", f"{row.num_differing:,}"]
    return [row.group, *counts, step, _number(row.relative), _number(row.largest), row.where]


def _differences(found: Comparison, path: Path, other: Path) -> Iterator[str]:
    if not found.by_name:
        yield "one of the two has no names of parameters: matched by place"
    for where, groups, params in zip((path, other), found.groups_only, found.params_only, strict=True):
        if groups:
            yield f"groups only in {where}: {format_names(groups)}"
        if params:
            yield f"parameters only in {where}: {format_names(params)}"
    for move in found.moves:
        yield f"{move.first} → {move.second}: {move.num_tensors} parameters"
    for setting in found.settings:
        yield f"{setting.group}: {setting.key}: {setting.first} → {setting.second}"
    for it in found.mismatches:
        yield f"{it.buffer}: {it.first} → {it.second} in {format_names(it.params, 3)}"


def _print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool
) -> None:
    table = RichTable(title=escape(title), title_justify="left")
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        justify: JustifyMethod = "left" if column in ("group", "algorithm", "in") else "right"
        # In a narrow terminal the headings fold, not the numbers.
        table.add_column(escape(column), justify=justify, overflow="fold", min_width=max(map(len, cells)))
    for row in rows:
        table.add_row(*map(escape, row), end_section=total and row is rows[-2])
    if not console.is_terminal:
        # A file is as wide as it has to be: nobody has to guess what was cut.
        unbounded = console.options.update(max_width=_UNBOUNDED)
        console.width = max(console.width, Measurement.get(console, unbounded, table).maximum)
    console.print(table, crop=False)


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST_LINES else [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES:,} more"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
