"""`--json`: one JSON document on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from rich.console import Console


@contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Gives stdout for the document alone; what a user's code prints inside the block goes to stderr."""
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield stdout


def print_json(document: Any, file: TextIO | None = None) -> None:
    """Print a document.

    Args:
        document: of mappings, lists and values.
        file: by default stdout.
    """
    # By rich, which ends quietly where the reader of a pipe, such as `head`, has gone.
    Console(file=file).out(to_json(document), highlight=False)


def to_json(document: Any) -> str:
    """The document as JSON, in ASCII.

    Numbers stay numbers, except those that JSON does not have: they are the strings "NaN", "Infinity" and "-Infinity",
    which `float` of Python and `Number` of JavaScript read. null means that there is none.

    Examples:
        >>> print(to_json({"lr": 0.1, "norm": float("nan")}))
        {
          "lr": 0.1,
          "norm": "NaN"
        }
    """
    return json.dumps(_to_plain(document), indent=2, allow_nan=False)


def _to_plain(value: Any) -> Any:
    """A value made of what JSON has; anything else, such as a function in a checkpoint, as text."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # a tensor, without an import of torch
        return _to_plain(value.tolist())
    return str(value)
