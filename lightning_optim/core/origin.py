"""`is_ours`: tells functions of this package from those of its users."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def is_ours(function: Callable[..., Any]) -> bool:
    """Whether a function is defined in this package, whoever has wrapped it since: torch wraps `Optimizer.step`."""
    module = str(getattr(unwrap(function), "__module__", ""))
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
