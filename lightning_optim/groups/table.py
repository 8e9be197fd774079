"""The group table: what `explain` prints before anything is trained."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

from ..hyperparameters import in_yaml
from ..schedule.variation import in_words

if TYPE_CHECKING:
    from .plan import Group, Plan

_ALWAYS = ("lr", "weight_decay")
_WIDTH = 120


@dataclass(frozen=True)
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

    plan: Plan
    starts: tuple[tuple[str, str], ...] = ()
    """`(stage, when it thaws)`, where the plan has stages."""

    def rows(self) -> list[dict[str, Any]]:
        """One row a group, then the frozen parameters, then the sum."""
        rows = [self._row(group, self._varying) for group in self.plan.groups]
        held = [name for group in self.plan.groups for name in group.params]
        if self.plan.frozen:
            rows.append({"group": "(frozen)", **self._sizes(self.plan.frozen), "rules": "frozen: true"})
        rows.append({"group": "all", **self._sizes((*held, *self.plan.frozen))})
        return rows

    def columns(self) -> list[str]:
        """The keys of a row."""
        staged = ["thaws", "lr_scale"] if self.starts else []
        schedule = ["schedule"] if any(group.schedule for group in self.plan.groups) else []
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
        by_name = {group.name: list(group.params) for group in self.plan.groups}
        rows = [{**row, "params": by_name.get(row["group"], [])} for row in self.rows()]
        return json.dumps(rows, indent=2)

    def __rich__(self) -> RichTable:
        table = RichTable(title="Unfreeze plan" if self.starts else "Param groups", title_justify="left")
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
        if self.starts:
            row |= {"thaws": dict(self.starts)[str(group.stage)], "lr_scale": group.lr_scale}
        row |= {"algorithm": group.algorithm, **self._sizes(group.params)}
        row |= {name: group.hyperparameters.get(name) for name in varying if name in group.hyperparameters}
        if self.starts and "lr" in row:
            row["lr"] *= group.lr_scale
        if group.schedule:
            row["schedule"] = in_words(group.schedule)
        return {**row, "rules": ", ".join(group.made_by)}

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        return {"tensors": len(names), "parameters": sum(self.plan.tensors[name].numel() for name in names)}

    @cached_property
    def _varying(self) -> list[str]:
        """lr and weight decay, and whatever else is not the same in every group of one algorithm."""
        names = dict.fromkeys(name for group in self.plan.groups for name in group.hyperparameters)
        first: dict[str, Group] = {}
        differ = set(_ALWAYS)
        for group in self.plan.groups:
            usual = first.setdefault(group.algorithm, group).hyperparameters
            differ.update(name for name, value in group.hyperparameters.items() if value != usual.get(name))
        return [name for name in names if name in differ]

    def _is_number(self, column: str) -> bool:
        return column not in ("group", "thaws", "algorithm", "schedule", "rules")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else in_yaml(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if value else "0.0"
