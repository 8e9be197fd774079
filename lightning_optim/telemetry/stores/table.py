"""`LoggedTable`: rows that each kind of logger shows as what it has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...groups.table import Table

Cell: TypeAlias = "str | bool | int | float | None"


@dataclass(frozen=True, kw_only=True)
class LoggedTable:
    """Rows with numbers as numbers, and the same in Markdown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """A column holds numbers only, or flags only, or text only; None where a row has no value."""
    markdown: str
    """For loggers that show text and no tables: may be about the new rows only."""
    num_logged: int = 0
    """How many of the first rows were logged before; loggers that append have them already."""

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, Any]], *, markdown: str, columns: Iterable[str] = (), num_logged: int = 0
    ) -> LoggedTable:
        """A table of plain values.

        Args:
            rows: values by column, of any type; tensors of one element count as numbers.
            markdown: the table, or its new rows.
            columns: in order; by default those of the first row.
            num_logged: how many of the first rows were logged before.
        """
        names = tuple(columns) or tuple(rows[0])
        by_column = [_to_cells([row.get(name) for row in rows]) for name in names]
        cells = tuple(zip(*by_column, strict=True))
        return cls(columns=names, rows=cells, markdown=markdown, num_logged=num_logged)

    @classmethod
    def from_groups(cls, table: Table) -> LoggedTable:
        """A group table, or an unfreeze plan."""
        return cls.from_rows(table.rows(), columns=table.columns(), markdown=table.markdown())


def _to_cells(values: Sequence[Any]) -> list[Cell]:
    """The values of a column, all of one type: loggers of tables refuse a column of numbers and text."""
    plain = [
        value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value for value in values
    ]
    given = [value for value in plain if value is not None]
    is_flag = [isinstance(value, bool) for value in given]
    if all(is_flag) or (all(isinstance(value, (int, float)) for value in given) and not any(is_flag)):
        return plain
    return [value if value is None else str(value) for value in plain]
