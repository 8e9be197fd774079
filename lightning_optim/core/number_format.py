"""Numbers as the tables print them: four significant digits, integers exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config_values import to_yaml

_MAX_WHOLE = 10**9
"""From here on a whole float has an exponent: its last digits are no longer of use."""


def format_number(value: float | None) -> str:
    """A number, within 0.1 % of its value; integers exactly, with thousands separators; '' for None.

    Examples:
        >>> [format_number(value) for value in (3.2768e-05, 0.001, 1 / 3, 23824, 100000.0, 0.0)]
        ['3.277e-05', '0.001', '0.3333', '23,824', '100,000', '0.0']
    """
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0.0"
    return f"{int(value):,}" if _is_whole(value) else f"{value:.4g}"


def format_value(value: Any) -> str:
    """A config value as YAML, its floats within 0.1 %; whole numbers stay as one would type them."""
    if isinstance(value, float) and not _is_whole(value):
        return format_number(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {format_value(item)}' for key, item in value.items())}}}"
    return to_yaml(value)


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < _MAX_WHOLE
