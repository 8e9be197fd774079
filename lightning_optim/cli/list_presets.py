"""`list`: the optimizers, the schedules and the presets of each kind, a row for each."""

from __future__ import annotations

from typing import Any, Literal

from rich.console import Console

from ..catalog.ready_configs import READY_CONFIGS
from ..catalog.registry import optimizer_info
from ..core.column_widths import Column
from ..core.errors import ConfigError
from ..core.text_table import TextTable
from ..schedule.catalog import schedule_info
from .presets import OPTIMIZER, SCHEDULER, check_matches, list_names, read_preset

_Entry = dict[str, Any]
_COLUMNS = {"weight_decay": "weight decay", "bytes_per_parameter": "bytes", "from_config": "in a config"}
_COLUMN_KINDS: dict[str, Literal["number", "exact"]] = {"name": "exact", "bytes_per_parameter": "number"}


def list_entries(kind: str, pattern: str) -> list[_Entry]:
    """What `list --json` prints: the same keys for all entries of a kind.

    Args:
        kind: a config group.
        pattern: a glob on the name.

    Raises:
        ConfigError: nothing matches.
    """
    names = list_names(kind, pattern)
    check_matches(kind, pattern, names)
    describe = {OPTIMIZER: _describe_optimizer, SCHEDULER: _describe_schedule}.get(kind)
    if describe is not None:
        return [{"kind": kind, "name": name, **describe(name)} for name in names]
    presets = [read_preset(kind, name) for name in names]
    return [{"kind": kind, "name": it.name, "summary": it.summary} for it in presets if it is not None]


def print_entries(console: Console, kind: str, entries: list[_Entry]) -> None:
    """Print the entries as a table; the configs that combine an optimizer with rules or values come last.

    Args:
        console: to print to.
        kind: of the entries.
        entries: from `list_entries`, at least one.
    """
    columns = [column for column in entries[0] if column not in ("kind", "algorithm", "error")]
    headings = tuple(Column(_COLUMNS.get(name, name), _COLUMN_KINDS.get(name, "text")) for name in columns)
    by_place = sorted(entries, key=lambda entry: kind == OPTIMIZER and entry["name"] in READY_CONFIGS)
    console.print(TextTable(columns=headings, rows=tuple(_cells(entry, columns) for entry in by_place)), crop=False)
    if kind == OPTIMIZER:
        console.print("bytes: of state per float32 parameter, with the defaults", markup=False)


def _cells(entry: _Entry, columns: list[str]) -> tuple[str, ...]:
    values = {**entry, "summary": entry.get("error") or entry["summary"]}
    return tuple(_format_cell(values[column]) for column in columns)


def _format_cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else str(value)


def _describe_optimizer(name: str) -> _Entry:
    ready = READY_CONFIGS.get(name)
    try:
        info = optimizer_info(ready.algorithm if ready else name)
    except ConfigError as error:  # registered by a package that cannot be imported
        empty = dict.fromkeys(("summary", "paper", "weight_decay", "state", "bytes_per_parameter"))
        return {**empty, "algorithm": name, "error": str(error)}
    # A modifier among the values of a ready config, such as lookahead, has a state of its own.
    size = None if ready and ready.values else info.state_bytes(info.defaults)
    return {
        "summary": ready.summary if ready else info.summary,
        "paper": info.paper,
        "weight_decay": info.decay,
        "state": list(info.buffers),
        "bytes_per_parameter": size,
        "algorithm": info.name,
        "error": None,
    }


def _describe_schedule(name: str) -> _Entry:
    info = schedule_info(name)
    return {
        "summary": info.summary,
        "length": info.length_argument,
        "from_config": not info.takes_function,
    }
