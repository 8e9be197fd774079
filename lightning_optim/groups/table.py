"""`Table`: the groups of a plan as rows, printed by `explain` before training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from ..core.column_widths import Column
from ..core.number_format import format_number, format_value
from ..core.text_table import TextTable
from ..schedule.also import Also, describe_curve
from ..schedule.override import format_override
from ..schedule.value_curves import show_ends
from .group import ALL, Group

_ALWAYS_SHOWN = ("lr", "weight_decay")
_SHOWN_UNLESS = {"matrix": None, "split": 1}
"""How parameters are read as matrices, which may be a guess: shown unless it is this."""
_KINDS: dict[str, Literal["name", "text"]] = {
    "group": "name", "algorithm": "name", "thaws": "text", "layer": "text", "execution": "text", "schedule": "text",
    "rules": "text",
}  # fmt: skip
"""The columns that are no numbers."""
_PER_GROUP = ("group", "thaws", "layer", "tensors", "parameters", "rules")
"""The columns that stay where they are the same for all groups."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A plan's groups as rows, for `print`, rich, notebooks, Markdown and JSON.

    `rows()` and `json()` have the values as they are; all else shows numbers within 0.1 %. `print` obeys `COLUMNS` and
    the width of the terminal, and leaves out columns that are the same for all groups, which it says below.

    Examples:
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
    frozen_by: tuple[str, ...] = ()
    """The names of those rules."""
    thaw_times: tuple[tuple[str, str], ...] = ()
    """`(stage, when it thaws)`, where the plan is split by stages."""
    also: Also = field(default_factory=dict, repr=False)
    """What a scheduler drives besides lr; `rows` and `json` have the values of the config."""

    def rows(self) -> list[dict[str, Any]]:
        """One row for each group, then the frozen parameters, then the total."""
        rows = [self._row(group) for group in self.groups]
        trained = [name for group in self.groups for name in group.params]
        if self.frozen:
            rows.append({"group": "(frozen)", **self._sizes(self.frozen), "rules": ", ".join(self.frozen_by)})
        if self.fixed:
            rows.append({"group": "(frozen by the model)", **self._sizes(self.fixed)})
        rows.append({"group": ALL, **self._sizes((*trained, *self.frozen, *self.fixed))})
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
        lines += self._cells(columns)
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([table, *self._curves])

    def json(self) -> str:
        """The rows in JSON, with each group's parameters by name."""
        by_name = {group.name: list(group.params) for group in self.groups}
        rows = [{**row, "params": by_name.get(row["group"], [])} for row in self.rows()]
        return json.dumps(rows, indent=2)

    def text(self, width: int | None = None) -> str:
        """The table as `print` shows it.

        Args:
            width: in columns; None for `COLUMNS` or the width of the terminal, or as wide as needed in a pipe.
        """
        return self.__rich__().render(width)

    def __rich__(self) -> TextTable:
        names, rows = self.columns(), self.rows()
        table = TextTable(
            title="Unfreeze plan" if self.thaw_times else "Param groups",
            columns=tuple(Column(name, _KINDS.get(name, "number")) for name in names),
            rows=tuple(map(tuple, self._cells(names))),
            notes=(*([f"stepped by: {self._executions[0]}"] if len(self._executions) == 1 else []), *self._curves),
            has_total=len(rows) > 1,
        )
        return table.say_below(name for name in names if self._is_shared(name, rows[: len(self.groups)]))

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.__rich__().html()

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

    def _cells(self, columns: Sequence[str]) -> list[list[str]]:
        """The rows as text; a value that a scheduler drives is shown as its first and its last."""
        cells = [[_format_cell(row.get(column)) for column in columns] for row in self.rows()]
        for group, line in zip(self.groups, cells, strict=False):
            for key, ends in show_ends(group.hyperparameters, self.also).items():
                if key in columns:
                    line[columns.index(key)] = " → ".join(map(_format_cell, ends))
        return cells

    @property
    def _curves(self) -> tuple[str, ...]:
        return tuple(describe_curve(key, curve) for key, curve in self.also.items())

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
        shown = {*_ALWAYS_SHOWN, *(key for group in self.groups for key in show_ends(group.hyperparameters, self.also))}
        for group in self.groups:
            reference = first.setdefault(group.algorithm, group).hyperparameters
            shown.update(name for name, value in group.hyperparameters.items() if value != reference.get(name))
        values = (group.hyperparameters for group in self.groups)
        shown.update(
            name for given in values for name, usual in _SHOWN_UNLESS.items() if given.get(name, usual) != usual
        )
        return [name for name in names if name in shown]

    def _is_shared(self, column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether several groups have a column's value in common; one that is printed alike may still be another."""
        if column in _PER_GROUP or len(rows) < 2:
            return False
        return all(column in row and row[column] == rows[0][column] for row in rows)

    def _is_number(self, column: str) -> bool:
        return column not in _KINDS


def _format_cell(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, str):
        return value
    is_number = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    return format_number(value) if is_number else format_value(value)
