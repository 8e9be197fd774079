"""`output_width`: how wide a table may be where it is printed."""

from __future__ import annotations

import os
import sys
from typing import TextIO

AS_NEEDED = 1_000_000
"""A width that no table has: in a pipe or a file, nothing has to fit."""
_UNKNOWN = 80


def output_width(stream: TextIO | None = None) -> int:
    """`COLUMNS` where it is set, else the width of the terminal; `AS_NEEDED` where the stream is no terminal.

    Args:
        stream: what the table is printed to; None for stdout.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    stream = sys.stdout if stream is None else stream
    # A GUI has no stdout at all, and a logger may have put an object of its own in its place.
    if not getattr(stream, "isatty", bool)():
        return AS_NEEDED
    try:
        return os.get_terminal_size(stream.fileno()).columns or _UNKNOWN
    except (OSError, ValueError, AttributeError):
        return _UNKNOWN
