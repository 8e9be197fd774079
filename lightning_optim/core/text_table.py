"""`TextTable`: rows of text as a terminal, a file and a notebook show them, at any width without a cut number."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table as RichTable
from rich.text import Text

from .column_widths import Column, fit_columns
from .output_width import output_width
from .printable import to_printable
from .table_cells import narrowest_names, shorten, wrap

_INDENT = "  "
_FRAME = 4
"""The columns that its left and right edges take."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table that is drawn as wide as its console lets it be, and becomes lines where that is too narrow.

    Examples:
        >>> columns = (Column("group", "name"), Column("lr"))
        >>> print(TextTable(columns=columns, rows=(("backbone", "3.277e-05"), ("head", "0.001"))).render(12))
        backbone
          lr:
          3.277e-05
        head
          lr: 0.001
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    """Lines below it."""
    has_total: bool = False
    """Whether the last row is about all others."""

    def __post_init__(self) -> None:
        # Names come from models, configs and files: none may hold what a terminal obeys, or break a line.
        rows = tuple(tuple(map(to_printable, row)) for row in self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "title", to_printable(self.title))
        object.__setattr__(self, "notes", tuple(map(to_printable, self.notes)))

    def say_below(self, names: Iterable[str]) -> TextTable:
        """Leave out these columns, which hold the same for all groups, and say below what that is.

        Args:
            names: of the columns; one whose first cell is empty stays.
        """
        names = set(names)
        first = self.rows[0] if self.rows else ()
        said = {
            index: f"{column.name} {cell}"
            for index, (column, cell) in enumerate(zip(self.columns, first, strict=False))
            if column.name in names and cell
        }
        if not said:
            return self
        return replace(
            self,
            columns=tuple(column for index, column in enumerate(self.columns) if index not in said),
            rows=tuple(tuple(cell for index, cell in enumerate(row) if index not in said) for row in self.rows),
            notes=(f"the same for all groups: {'; '.join(said.values())}", *self.notes),
        )

    def render(self, width: int | None = None) -> str:
        """The table as plain text.

        Args:
            width: in columns; None for that of stdout.
        """
        text = io.StringIO()
        width = output_width() if width is None else width
        # With a width and no height, rich asks the terminal, and with TERM=dumb it takes 80 columns.
        console = Console(
            file=text, width=width, height=100, color_system=None, force_jupyter=False, legacy_windows=False
        )
        console.print(self, crop=False)
        return text.getvalue().rstrip()

    def html(self) -> str:
        """The table for a notebook."""
        head = "".join(_html_cell("th", column, column.name) for column in self.columns)
        body = "".join(f"<tr>{self._html_cells(row)}</tr>" for row in self.rows)
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | RichTable]:
        width = options.max_width
        lines_between = 3 * (len(self.columns) - 1)
        framed = fit_columns(self.columns, self.rows, width - lines_between - _FRAME)
        widths = framed or fit_columns(self.columns, self.rows, width - lines_between)
        if self.title:
            yield _as_is(wrap(_words(self.title), width), style="table.title")
        yield self._draw(widths, is_framed=framed is not None) if widths else _as_is("\n".join(self._lines(width)))
        for note in self.notes:
            yield _as_is(wrap(_words(note), width), style="table.caption")

    def _html_cells(self, row: Sequence[str]) -> str:
        return "".join(_html_cell("td", column, cell) for column, cell in zip(self.columns, row, strict=True))

    def _draw(self, widths: Sequence[int], *, is_framed: bool) -> RichTable:
        table = RichTable(show_edge=is_framed, pad_edge=is_framed)
        for column, width in zip(self.columns, widths, strict=True):
            table.add_column(
                Text(column.fit_heading(width)),
                width=width,
                no_wrap=True,  # each cell fits; with overflow="ignore", rich aligns none
                justify="right" if column.kind == "number" else "left",
            )
        for index, row in enumerate(self.rows):
            cells = (column.fit(cell, width) for column, cell, width in zip(self.columns, row, widths, strict=True))
            table.add_row(*map(Text, cells), end_section=self.has_total and index == len(self.rows) - 2)
        return table

    def _lines(self, width: int) -> Iterator[str]:
        """For each row its name, and below it what the other cells say, a number never apart from itself."""
        names = [row[0] for row in self.rows]
        name_width = narrowest_names(names, max(width, 1))
        for row in self.rows:
            yield shorten(row[0], name_width)
            pieces = [
                f"{column.name}: {cell}; " for column, cell in zip(self.columns[1:], row[1:], strict=True) if cell
            ]
            if pieces:
                pieces[-1] = pieces[-1].removesuffix("; ")
            longest = max((cell_len(word) for piece in pieces for word in piece.split()), default=0)
            indent = _INDENT if longest <= width - len(_INDENT) else ""  # a console would cut a number in two
            narrow = width - len(indent)
            parts = (part for piece in pieces for part in _split_piece(piece, narrow))
            yield from (f"{indent}{line}" for line in wrap(parts, narrow).splitlines())


def _split_piece(piece: str, width: int) -> list[str]:
    """The piece, or its words where it is too long for a line."""
    return [piece] if cell_len(piece.rstrip()) <= width else _words(piece)


def _words(text: str) -> list[str]:
    return [f"{word} " for word in text.split(" ") if word]


def _as_is(text: str, style: str = "") -> Text:
    """Text that rich does not wrap: it would cut a number that is wider than the console."""
    return Text(text, style=style, no_wrap=True, overflow="ignore")


def _html_cell(tag: str, column: Column, text: str) -> str:
    align = "right" if column.kind == "number" else "left"
    return f'<{tag} style="text-align: {align}">{escape(text)}</{tag}>'
