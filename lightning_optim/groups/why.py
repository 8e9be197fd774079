"""Why one parameter is trained as it is: which rule set which field."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from ..core.config_values import to_yaml
from ..schedule.override import format_override
from .group import Group
from .rules import SCALES

_WIDTH = 120


@dataclass(frozen=True)
class Why:
    """A parameter's fields, each with its value and the keys of the config that made it; printable as a table."""

    parameter: str
    """Its clean name."""
    group: Group | None
    """The group that holds it; None where a rule froze it."""
    frozen_by: tuple[str, ...] = ()
    """The keys of the config that froze it."""

    def rows(self) -> list[tuple[str, str, str]]:
        """`(field, value, keys)`: the keys of what was set, then of each scale on it."""
        if self.group is None:
            return [("frozen", "true", ", ".join(self.frozen_by))]
        group = self.group
        rows = [("optimizer", group.algorithm, _keys(group.sources.get("optimizer", ()), "name"))]
        rows += [
            (name, to_yaml(value), _keys(group.sources.get(name, ()), f"the default of {group.algorithm}"))
            for name, value in group.hyperparameters.items()
        ]
        if group.schedule is not None:
            rows.append(("schedule", format_override(group.schedule), _keys(group.sources.get("schedule", ()), "")))
        return rows

    def __rich__(self) -> RichTable:
        held = f"in the group {self.group.name}" if self.group else "frozen: in no group"
        table = RichTable("field", "value", "set by", title=f"{self.parameter}: {held}", title_justify="left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(self)
        return text.getvalue().rstrip()


def _keys(keys: tuple[str, ...], otherwise: str) -> str:
    """`groups.hidden.lr × groups.depth.layer_decay ** 3`: who set it, or what it is otherwise, and the scales on it."""
    setters = [key for key in keys if not _is_scale(key)]
    return " × ".join([*(setters or [otherwise]), *(key for key in keys if _is_scale(key))])


def _is_scale(key: str) -> bool:
    return key.partition(" ")[0].rpartition(".")[2] in SCALES
