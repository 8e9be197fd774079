"""`Table`: the groups of a plan as rows, printed by `explain` before training."""

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

_ALWAYS_SHOWN = ("lr", "weight_decay")
_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Table:
    """A plan's groups as rows, for `print`, rich, Markdown and JSON.

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
    """Parameters frozen by a `frozen: true` rule."""
    fixed: tuple[str, ...] = ()
    """Parameters that the model itself keeps frozen."""
    sizes: Mapping[str, int] = field(repr=False)
    """By parameter: its number of elements."""
    thaw_times: tuple[tuple[str, str], ...] = ()
    """`(stage, when it thaws)`, where the plan is split by stages."""

    def rows(self) -> list[dict[str, Any]]:
        """One row for each group, then the frozen parameters, then the total."""
        rows = [self._row(group) for group in self.groups]
        trained = [name for group in self.groups for name in group.params]
        if self.frozen:
            rows.append({"group": "(frozen)", **self._sizes(self.frozen), "rules": "frozen: true"})
        if self.fixed:
            rows.append({"group": "(frozen by the model)", **self._sizes(self.fixed)})
        rows.append({"group": "all", **self._sizes((*trained, *self.frozen, *self.fixed))})
        return rows

    def columns(self) -> list[str]:
        """The keys of a row."""
        staged = ["thaws", "lr_scale"] if self.thaw_times else []
        layer = ["layer"] if any(group.layers for group in self.groups) else []
        schedule = ["schedule"] if any(group.schedule for group in self.groups) else []
        values = [*staged[1:], *self._shown_hyperparameters, *schedule]
        execution = ["execution"] if len(self._executions) > 1 else []
        return ["group", *staged[:1], *layer, "algorithm", *execution, "tensors", "parameters", *values, "rules"]

    def markdown(self) -> str:
        """The table in Markdown."""
        columns = self.columns()
        lines = [columns, ["---:" if self._is_number(column) else "---" for column in columns]]
        lines += [[_format_cell(row.get(column)) for column in columns] for row in self.rows()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def json(self) -> str:
        """The rows in JSON, with each group's parameters by name."""
        by_name = {group.name: list(group.params) for group in self.groups}
        rows = [{**row, "params": by_name.get(row["group"], [])} for row in self.rows()]
        return json.dumps(rows, indent=2)

    def __rich__(self) -> RichTable:
        table = RichTable(title="Unfreeze plan" if self.thaw_times else "Param groups", title_justify="left")
        columns, rows = self.columns(), self.rows()
        if len(self._executions) == 1:
            table.caption = f"stepped by: {self._executions[0]}"
            table.caption_justify = "left"
        for column in columns:
            table.add_column(column, justify="right" if self._is_number(column) else "left", no_wrap=column == "group")
        for row in rows:
            is_last_but_one = len(rows) > 1 and row is rows[-2]
            table.add_row(*(_format_cell(row.get(column)) for column in columns), end_section=is_last_but_one)
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(self)
        return text.getvalue().rstrip()

    def _row(self, group: Group) -> dict[str, Any]:
        row: dict[str, Any] = {"group": group.name}
        if self.thaw_times:
            row |= {"thaws": dict(self.thaw_times)[str(group.stage)], "lr_scale": group.lr_scale}
        if group.layers:
            row["layer"] = group.layer
        row |= {"algorithm": group.algorithm, **self._sizes(group.params)}
        row |= {"execution": group.execution} if group.execution else {}
        values = group.hyperparameters
        row |= {name: values[name] for name in self._shown_hyperparameters if name in values}
        if self.thaw_times and "lr" in row:
            row["lr"] *= group.lr_scale
        if group.schedule:
            row["schedule"] = format_override(group.schedule)
        return {**row, "rules": ", ".join(group.made_by)}

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        return {"tensors": len(names), "parameters": sum(self.sizes[name] for name in names)}

    @cached_property
    def _executions(self) -> list[str]:
        return list(dict.fromkeys(group.execution for group in self.groups if group.execution))

    @cached_property
    def _shown_hyperparameters(self) -> list[str]:
        """lr, weight decay, and every hyperparameter that differs between groups of the same algorithm."""
        names = dict.fromkeys(name for group in self.groups for name in group.hyperparameters)
        first: dict[str, Group] = {}
        shown = set(_ALWAYS_SHOWN)
        for group in self.groups:
            reference = first.setdefault(group.algorithm, group).hyperparameters
            shown.update(name for name, value in group.hyperparameters.items() if value != reference.get(name))
        return [name for name in names if name in shown]

    def _is_number(self, column: str) -> bool:
        return column not in ("group", "thaws", "layer", "algorithm", "execution", "schedule", "rules")


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else to_yaml(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if value else "0.0"
