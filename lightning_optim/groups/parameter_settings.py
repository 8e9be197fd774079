"""`ParameterSettings`: the settings of one parameter and the rules that set them, for `explain --why`."""

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
class ParameterSettings:
    """The fields of one parameter, each with its value and the config keys that set it; prints as a table."""

    parameter: str
    """Its clean name."""
    group: Group | None
    """Its group; None where a rule froze it."""
    frozen_by: tuple[str, ...] = ()
    """The config keys that froze it."""

    def rows(self) -> list[tuple[str, str, str]]:
        """`(field, value, keys)`: the keys that set the value, then those that scale it."""
        if self.group is None:
            return [("frozen", "true", ", ".join(self.frozen_by))]
        group = self.group
        rows = [("optimizer", group.algorithm, _format_keys(group.sources.get("optimizer", ()), "name"))]
        rows += [
            (name, to_yaml(value), _format_keys(group.sources.get(name, ()), f"the default of {group.algorithm}"))
            for name, value in group.hyperparameters.items()
        ]
        if group.schedule is not None:
            keys = _format_keys(group.sources.get("schedule", ()), "")
            rows.append(("schedule", format_override(group.schedule), keys))
        return rows

    def __rich__(self) -> RichTable:
        where = f"in the group {self.group.name}" if self.group else "frozen: in no group"
        table = RichTable("field", "value", "set by", title=f"{self.parameter}: {where}", title_justify="left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(self)
        return text.getvalue().rstrip()


def _format_keys(keys: tuple[str, ...], default: str) -> str:
    """The keys as `groups.hidden.lr × groups.depth.layer_decay ** 3`; `default` where no key sets the value."""
    setters = [key for key in keys if not _is_scale(key)]
    return " × ".join([*(setters or [default]), *(key for key in keys if _is_scale(key))])


def _is_scale(key: str) -> bool:
    return key.partition(" ")[0].rpartition(".")[2] in SCALES
