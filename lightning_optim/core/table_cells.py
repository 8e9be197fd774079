"""Cells of a table made narrower: names shortened in the middle, text wrapped; what has digits stays whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

ELLIPSIS = "…"
_BREAKS = re.compile(r"(?<=_)(?=[^_])|(?<=\s)")
"""Where a heading may be wrapped: `weight_decay` after the `_`."""


def shorten(name: str, width: int) -> str:
    """The name with its middle left out, at most `width` wide.

    Examples:
        >>> shorten("backbone.encoder.layer.11", 15)
        'backbon…ayer.11'
    """
    if cell_len(name) <= width:
        return name
    start, end = name[: width // 2], name[len(name) - (width - 1) // 2 :]
    while cell_len(start + end) >= width:  # of characters that are two columns wide
        start, end = (start[:-1], end) if len(start) > len(end) else (start, end[1:])
    return f"{start}{ELLIPSIS}{end}"


def wrap(pieces: Iterable[str], width: int) -> str:
    """The pieces on as few lines of at most `width` as possible; a piece that is wider has a line of its own."""
    lines = [""]
    for piece in pieces:
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def split_heading(heading: str) -> list[str]:
    """The parts between which a heading may be wrapped."""
    return [part for part in _BREAKS.split(heading) if part]


def wrap_text(text: str, width: int) -> str:
    """The text wrapped between its words; a word without digits that is too long is shortened."""
    words = [word if is_uncuttable(word) else shorten(word, width) for word in text.split(" ")]
    return wrap([f"{word} " for word in words], width)


def is_uncuttable(word: str) -> bool:
    """Whether it may be a number, or hold one."""
    return any(character.isdigit() for character in word)


def longest(texts: Iterable[str]) -> int:
    """The width of the widest; 0 of none."""
    return max(map(cell_len, texts), default=0)


def narrowest_names(names: Sequence[str], least: int) -> int:
    """The least width, from `least` on, at which the shortened names still differ from each other."""
    distinct = set(names)
    width = least
    while len({shorten(name, width) for name in distinct}) < len(distinct):
        width += 1
    return width
