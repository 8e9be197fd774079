"""Text from configs and files as it may be shown: without what a terminal or a browser would obey."""

from __future__ import annotations

import unicodedata

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control codes, invisible ones that turn the direction of the text, lone surrogates, and line separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def to_printable(text: str) -> str:
    """The text on one line, each control character replaced by one of the same width, so that tables stay aligned.

    Examples:
        >>> to_printable("head\\x1b[2J")
        'head\N{REPLACEMENT CHARACTER}[2J'
    """
    return "".join(_REPLACEMENT if unicodedata.category(it) in _HIDDEN else it for it in text)


def escape_hidden(message: str) -> str:
    """The text with each control character but line ends as Python escapes it, so that a reader sees which it is.

    Examples:
        >>> print(escape_hidden("head\\x1b[2J"))
        head\\x1b[2J
    """
    if message.isprintable():
        return message
    return "".join(repr(it)[1:-1] if unicodedata.category(it) in _HIDDEN and it != "\n" else it for it in message)
