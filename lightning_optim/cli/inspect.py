"""`inspect`: what the optimizers in a checkpoint hold, and the difference of two checkpoints; no model is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from ..core.column_widths import Column
from ..core.errors import format_names
from ..core.number_format import format_number
from ..core.printable import to_printable
from ..core.text_table import TextTable
from .checkpoint_compare import Comparison, GroupDifference, compare, format_exactly, pair_optimizers
from .checkpoint_reader import read_checkpoint
from .checkpoint_report import Report, Row, build_report

_MIB = 2**20
# A diverged run has non-finite values everywhere; the first are those nearest the input.
_MAX_LINES = 50
_DIFFERENCE_COLUMNS = ("group", "equal", "differing", "step", "relative", "largest", "in")


def print_report(console: Console, path: Path, *, verify: bool = True) -> None:
    """Print the groups of each optimizer with the norms of their state, and the values that are not finite.

    Args:
        console: to print to.
        path: the checkpoint.
        verify: as of `read_checkpoint`.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    for saved in read_checkpoint(path, verify=verify):
        report = build_report(saved)
        rows = [_report_cells(report, row) for row in report.rows]
        table = _build_table(report.key, _report_columns(report), rows, has_total=True)
        console.print(table.say_below(_shared_columns(report)), crop=False)
        lines = [f"{it.parameter}: {it.buffer} {it.count:,} of {it.size:,} not finite" for it in report.nonfinite]
        _print_lines(console, _truncate(lines) or ["no non-finite values"])


def print_comparison(console: Console, path: Path, other: Path, *, verify: bool = True) -> None:
    """Print the difference of two checkpoints, optimizer by optimizer.

    Args:
        console: to print to.
        path: its groups are the rows.
        other: the checkpoint to compare it with.
        verify: as of `read_checkpoint`.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    for first, second in pair_optimizers(read_checkpoint(path, verify=verify), read_checkpoint(other, verify=verify)):
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
        console.print(_build_table(title, _DIFFERENCE_COLUMNS, rows, has_total=False), crop=False)
        _print_lines(console, list(_difference_lines(comparison, path, other)))


def _report_columns(report: Report) -> list[str]:
    algorithm = ["algorithm"] if any(row.algorithm for row in report.rows) else []
    return ["group", *algorithm, "tensors", "parameters", "lr", "weight_decay", "step", *report.buffers, "state MiB"]


def _shared_columns(report: Report) -> list[str]:
    """Those that several groups have the same value in."""
    *groups, _ = report.rows
    candidates = ("algorithm", "lr", "weight_decay") if len(groups) > 1 else ()
    return [name for name in candidates if len({getattr(row, name) for row in groups}) == 1]


def _report_cells(report: Report, row: Row) -> list[str]:
    parameters = f"{row.num_parameters:,}"
    if row.num_unknown:
        parameters = f"≥ {parameters}" if row.num_parameters else ""
    values = {
        "group": row.group,
        "algorithm": row.algorithm or "",
        "tensors": f"{row.num_tensors:,}",
        "parameters": parameters,
        "lr": format_number(row.lr),
        "weight_decay": format_number(row.weight_decay),
        "step": format_number(row.step),
        "state MiB": format_number(row.num_bytes and row.num_bytes / _MIB),
    }
    return [
        format_number(row.norms.get(name)) if name in report.buffers else values[name]
        for name in _report_columns(report)
    ]


def _difference_cells(group: GroupDifference) -> list[str]:
    step = "" if group.step is None else " → ".join(format_number(side) or "missing" for side in group.step)
    counts = [f"{group.num_equal:,}", f"{group.num_differing:,}"]
    return [group.group, *counts, step, format_number(group.relative), format_number(group.largest), group.where]


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
        yield f"{change.group}: {change.key}: {format_exactly(change.first)} → {format_exactly(change.second)}"
    for mismatch in comparison.mismatches:
        yield f"{mismatch.buffer}: {mismatch.first} → {mismatch.second} in {format_names(mismatch.params, 3)}"


def _build_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, has_total: bool) -> TextTable:
    kinds: dict[str, Literal["name", "text"]] = {"group": "name", "algorithm": "name", "in": "text"}
    return TextTable(
        title=title,
        columns=tuple(Column(name, kinds.get(name, "number")) for name in columns),
        rows=tuple(map(tuple, rows)),
        has_total=has_total,
    )


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(to_printable(line), markup=False, soft_wrap=True)


def _truncate(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MAX_LINES else [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES:,} more"]
