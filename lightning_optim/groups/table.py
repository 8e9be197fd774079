"""The group table: what `explain` prints before anything is trained."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from ..core.config_values import to_yaml
from ..schedule.override import format_override
from .group import Group

_ALWAYS = ("lr", "weight_decay")
_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Table:
    """A plan's groups as rows: printable with `print` and with rich, as Markdown and as JSON.

    Example:
        >>> from torch import nn
        >>> print(OptimizerFactory("sgd", lr=0.1).explain(nn.Linear(3, 2)).markdown())
        | group | algorithm | tensors | parameters | lr | weight_decay | rules |
        | --- | --- | ---: | ---: | ---: | ---: | --- |
        | default | sgd | 2 | 8 | 0.1 | 0.0 |  |
        | all |  | 2 | 8 |  |  |  |
    """

    groups: tuple[Group, ...]
    frozen: tuple[str, ...]
    """Parameters that a `frozen: true` rule took."""
    sizes: Mapping[str, int] = field(repr=False)
    """The number of elements of each parameter."""
    thaw_times: tuple[tuple[str, str], ...] = ()
    """`(stage, when it thaws)`, where the plan is split by stages."""

    def rows(self) -> list[dict[str, Any]]:
        """One row a group, then the frozen parameters, then the sum."""
        rows = [self._row(group, self._varying) for group in self.groups]
        held = [name for group in self.groups for name in group.params]
        if self.frozen:
            rows.append({"group": "(frozen)", **self._sizes(self.frozen), "rules": "frozen: true"})
        rows.append({"group": "all", **self._sizes((*held, *self.frozen))})
        return rows

    def columns(self) -> list[str]:
        """The keys of a row."""
        staged = ["thaws", "lr_scale"] if self.thaw_times else []
        schedule = ["schedule"] if any(group.schedule for group in self.groups) else []
        sizes = ["tensors", "parameters"]
        return ["group", *staged[:1], "algorithm", *sizes, *staged[1:], *self._varying, *schedule, "rules"]

    def markdown(self) -> str:
        """The table in Markdown."""
        columns = self.columns()
        lines = [columns, ["---:" if self._is_number(column) else "---" for column in columns]]
        lines += [[_cell(row.get(column)) for column in columns] for row in self.rows()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def json(self) -> str:
        """The rows in JSON, with each group's parameters by name."""
        by_name = {group.name: list(group.params) for group in self.groups}
        rows = [{**row, "params": by_name.get(row["group"], [])} for row in self.rows()]
        return json.dumps(rows, indent=2)

    def __rich__(self) -> RichTable:
        table = RichTable(title="Unfreeze plan" if self.thaw_times else "Param groups", title_justify="left")
        for column in self.columns():
            table.add_column(column, justify="right" if self._is_number(column) else "left", no_wrap=column == "group")
        rows = self.rows()
        columns = self.columns()
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns), end_section=row is rows[-2])
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(self)
        return text.getvalue().rstrip()

    def _row(self, group: Group, varying: Sequence[str]) -> dict[str, Any]:
        row: dict[str, Any] = {"group": group.name}
        if self.thaw_times:
            row |= {"thaws": dict(self.thaw_times)[str(group.stage)], "lr_scale": group.lr_scale}
        row |= {"algorithm": group.algorithm, **self._sizes(group.params)}
        row |= {name: group.hyperparameters.get(name) for name in varying if name in group.hyperparameters}
        if self.thaw_times and "lr" in row:
            row["lr"] *= group.lr_scale
        if group.schedule:
            row["schedule"] = format_override(group.schedule)
        return {**row, "rules": ", ".join(group.made_by)}

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        return {"tensors": len(names), "parameters": sum(self.sizes[name] for name in names)}

    @cached_property
    def _varying(self) -> list[str]:
        """lr and weight decay, and whatever else is not the same in every group of one algorithm."""
        names = dict.fromkeys(name for group in self.groups for name in group.hyperparameters)
        first: dict[str, Group] = {}
        differ = set(_ALWAYS)
        for group in self.groups:
            usual = first.setdefault(group.algorithm, group).hyperparameters
            differ.update(name for name, value in group.hyperparameters.items() if value != usual.get(name))
        return [name for name in names if name in differ]

    def _is_number(self, column: str) -> bool:
        return column not in ("group", "thaws", "algorithm", "schedule", "rules")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else to_yaml(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if value else "0.0"
