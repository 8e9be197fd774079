"""Text from files as it may be shown: without what a terminal or a browser would obey."""

from __future__ import annotations

import unicodedata

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control codes, invisible ones that turn the direction of the text, lone surrogates, and line separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def to_printable(text: str) -> str:
    """The text on one line, each control character replaced.

    Example:
        >>> to_printable("head\\x1b[2J")
        'head\N{REPLACEMENT CHARACTER}[2J'
    """
    return "".join(_REPLACEMENT if unicodedata.category(it) in _HIDDEN else it for it in text)
