"""`show`: one optimizer, schedule or preset, found by its name."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from ..catalog.registry import list_optimizers
from .presets import OPTIMIZER, find_kind
from .show_optimizer import describe_optimizer, print_optimizer
from .show_preset import describe_preset, print_preset


def describe(name: str, kind: str | None) -> dict[str, Any]:
    """What `show --json` prints.

    Args:
        name: of an optimizer, a schedule or a preset.
        kind: its config group; None for the only one that has the name.

    Raises:
        ConfigError: as `find_kind`.
    """
    kind = find_kind(name, kind)
    return describe_optimizer(name) if _is_optimizer(kind, name) else describe_preset(kind, name)


def print_details(console: Console, name: str, kind: str | None) -> None:
    """Print an optimizer, a schedule or a preset.

    Args:
        console: to print to.
        name: of an optimizer, a schedule or a preset.
        kind: its config group; None for the only one that has the name.

    Raises:
        ConfigError: as `find_kind`.
    """
    kind = find_kind(name, kind)
    if _is_optimizer(kind, name):
        print_optimizer(console, name)
    else:
        print_preset(console, kind, name)


def _is_optimizer(kind: str, name: str) -> bool:
    """Whether it is an algorithm, and not a config that combines one with rules."""
    return kind == OPTIMIZER and name in list_optimizers()
