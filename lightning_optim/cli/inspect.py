"""`inspect`: what the optimizers in a checkpoint hold, and the difference of two checkpoints; no model is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from ..core.errors import format_names
from .checkpoint_compare import Comparison, GroupDifference, compare, format_value, pair_optimizers
from .checkpoint_reader import read_checkpoint
from .checkpoint_report import Report, Row, build_report

_MIB = 2**20
# A diverged run has non-finite values everywhere; the first are those nearest the input.
_MAX_LINES = 50
_UNBOUNDED_WIDTH = 10_000
_DIFFERENCE_COLUMNS = ("group", "equal", "differing", "step", "relative", "largest", "in")


def print_report(console: Console, path: Path) -> None:
    """Print the groups of each optimizer with the norms of their state, and the values that are not finite.

    Args:
        console: to print to.
        path: the checkpoint.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    for saved in read_checkpoint(path):
        report = build_report(saved)
        rows = [_report_cells(report, row) for row in report.rows]
        _print_table(console, report.key, _report_columns(report), rows, has_total=True)
        lines = [f"{it.parameter}: {it.buffer} {it.count:,} of {it.size:,} not finite" for it in report.nonfinite]
        _print_lines(console, _truncate(lines) or ["no non-finite values"])


def print_comparison(console: Console, path: Path, other: Path) -> None:
    """Print the difference of two checkpoints, optimizer by optimizer.

    Args:
        console: to print to.
        path: its groups are the rows.
        other: the checkpoint to compare it with.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    for first, second in pair_optimizers(read_checkpoint(path), read_checkpoint(other)):
        if first is None or second is None:
            saved, where = (first, path) if first is not None else (second, other)
            assert saved is not None
            _print_lines(console, [f"{saved.key}: only in {where}"])
            continue
        comparison = compare(first, second)
        title = " and ".join(dict.fromkeys(comparison.keys))
        if comparison.is_identical:
            _print_lines(console, [f"{title}: identical: {comparison.num_equal:,} state tensors, bitwise"])
            continue
        rows = [_difference_cells(group) for group in comparison.groups]
        _print_table(console, title, _DIFFERENCE_COLUMNS, rows, has_total=False)
        _print_lines(console, list(_difference_lines(comparison, path, other)))


def _report_columns(report: Report) -> list[str]:
    algorithm = ["algorithm"] if any(row.algorithm for row in report.rows) else []
    return ["group", *algorithm, "tensors", "parameters", "lr", "weight_decay", "step", *report.buffers, "state MiB"]


def _report_cells(report: Report, row: Row) -> list[str]:
    parameters = f"{row.num_parameters:,}"
    if row.num_unknown:
        parameters = f"≥ {parameters}" if row.num_parameters else ""
    values = {
        "group": row.group,
        "algorithm": row.algorithm or "",
        "tensors": f"{row.num_tensors:,}",
        "parameters": parameters,
        "lr": _format_number(row.lr),
        "weight_decay": _format_number(row.weight_decay),
        "step": _format_number(row.step),
        "state MiB": f"{row.num_bytes / _MIB:.3g}",
    }
    return [
        _format_number(row.norms.get(name)) if name in report.buffers else values[name]
        for name in _report_columns(report)
    ]


def _difference_cells(group: GroupDifference) -> list[str]:
    step = "" if group.step is None else " → ".join(_format_number(side) or "missing" for side in group.step)
    counts = [f"{group.num_equal:,}", f"{group.num_differing:,}"]
    return [group.group, *counts, step, _format_number(group.relative), _format_number(group.largest), group.where]


def _difference_lines(comparison: Comparison, path: Path, other: Path) -> Iterator[str]:
    if not comparison.by_name:
        yield "one of the files has no parameter names: matched by position"
    for where, groups, params in zip((path, other), comparison.groups_only, comparison.params_only, strict=True):
        if groups:
            yield f"groups only in {where}: {format_names(groups)}"
        if params:
            yield f"parameters only in {where}: {format_names(params)}"
    for moved in comparison.moved:
        yield f"{moved.first} → {moved.second}: {moved.num_tensors} parameters"
    for change in comparison.hyperparameters:
        yield f"{change.group}: {change.key}: {format_value(change.first)} → {format_value(change.second)}"
    for mismatch in comparison.mismatches:
        yield f"{mismatch.buffer}: {mismatch.first} → {mismatch.second} in {format_names(mismatch.params, 3)}"


def _print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, has_total: bool
) -> None:
    table = RichTable(title=escape(title), title_justify="left")
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        justify: JustifyMethod = "left" if column in ("group", "algorithm", "in") else "right"
        # In a narrow terminal the headings wrap, not the numbers.
        table.add_column(escape(column), justify=justify, overflow="fold", min_width=max(map(len, cells)))
    for row in rows:
        table.add_row(*map(escape, row), end_section=has_total and row is rows[-2])
    if not console.is_terminal:
        # In a file the table is as wide as it needs to be, so that nothing is cut.
        unbounded = console.options.update(max_width=_UNBOUNDED_WIDTH)
        console.width = max(console.width, Measurement.get(console, unbounded, table).maximum)
    console.print(table, crop=False)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _truncate(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MAX_LINES else [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES:,} more"]


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
