"""How configured objects show themselves: as the call that makes them, and in a notebook as a table of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .number_format import format_value
from .printable import escape_hidden


def format_call(owner: object, /, *arguments: Any, **settings: Any) -> str:
    """The call that makes an object like `owner`.

    Examples:
        >>> format_call(object(), "adamw", lr=0.1)
        "object('adamw', lr=0.1)"
    """
    formatted = [*map(repr, arguments), *(f"{key}={value!r}" for key, value in settings.items())]
    return f"{type(owner).__name__}({', '.join(formatted)})"


def settings_html(title: str, settings: Mapping[str, Any]) -> str:
    """An HTML table with a row for each setting."""
    from .column_widths import Column  # with rich, which a config that is only checked does not need
    from .text_table import TextTable

    columns = (Column("setting", "text"), Column("value", "text"))
    rows = tuple((escape_hidden(key), escape_hidden(format_value(value))) for key, value in settings.items())
    return TextTable(title=title, columns=columns, rows=rows).html()
