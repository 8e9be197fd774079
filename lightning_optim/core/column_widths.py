"""`fit_columns`: the widths of a table's columns in a given space, numbers whole whatever the space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

from .table_cells import is_uncuttable, longest, narrowest_names, shorten, split_heading, wrap, wrap_text

_SHORT_NAME = 8
_NARROW_TEXT = 10
_LONG_WORD = 24


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    """Its heading."""
    kind: Literal["number", "exact", "name", "text"] = "number"
    """`number`: aligned right and never changed; `exact`: never changed; `name`: shortened where it has to be; `text`:
    wrapped, and words without digits shortened."""

    def fit(self, cell: str, width: int) -> str:
        """A cell in this width."""
        if self.kind == "name":
            return shorten(cell, width)
        return wrap_text(cell, width) if self.kind == "text" else cell

    def fit_heading(self, width: int) -> str:
        """The heading in this width."""
        return wrap(split_heading(self.name), width)


def fit_columns(columns: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> list[int] | None:
    """The widths of the columns, together at most `space`; None where that cannot be.

    First headings and texts are wrapped, then names are shortened, as long as they still differ.

    Args:
        columns: of the table.
        rows: the cells of each row.
        space: the width for all columns, without the lines between them.
    """
    cells = [[row[index] for row in rows] for index in range(len(columns))]
    pairs = list(zip(columns, cells, strict=True))
    widths = [max(cell_len(column.name), longest(column_cells)) for column, column_cells in pairs]
    narrowest = [_narrowest(column, column_cells) for column, column_cells in pairs]
    comfortable = [_before_shortening(column, column_cells) for column, column_cells in pairs]
    fits = any(_shrink(widths, least, space) for least in (comfortable, narrowest))
    return widths if fits else None


def _shrink(widths: list[int], least: Sequence[int], space: int) -> bool:
    """Make the widest columns narrower until all fit; whether they do."""
    while sum(widths) > space:
        index = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        if widths[index] <= least[index]:
            return False
        widths[index] -= 1
    return True


def _before_shortening(column: Column, cells: Sequence[str]) -> int:
    """The least width at which headings and texts are wrapped, and no name or word is shortened."""
    if column.kind == "text":
        words = [word for word in _words(cells) if cell_len(word) <= _LONG_WORD]
        return max(_narrowest(column, cells), longest(words))
    return max(_heading(column), longest(cells))


def _narrowest(column: Column, cells: Sequence[str]) -> int:
    if column.kind == "name":
        return max(_heading(column), narrowest_names(cells, min(_SHORT_NAME, longest(cells))))
    if column.kind == "text":
        uncuttable = filter(is_uncuttable, _words(cells))
        return max(_heading(column), min(_NARROW_TEXT, longest(cells)), longest(uncuttable))
    return max(_heading(column), longest(cells))


def _heading(column: Column) -> int:
    return longest(part.rstrip() for part in split_heading(column.name))


def _words(cells: Sequence[str]) -> Iterator[str]:
    return (word for cell in cells for word in cell.split(" "))
