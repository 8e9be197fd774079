"""What identifies a run, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """What identifies a run: its config, and the split that is evaluated."""

    overrides: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Measured:
    """What came of a run."""

    accuracy: float
    wall_s: float
    """Of the fit."""
    cpu_s: float
    """Of the fit, over all threads."""
    peak_mb: float | None
    """Above the memory of the process before; None where the system does not tell."""
