"""The definition of an arm of the benchmark: cases to compare, and what to report besides their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .measure import Case, Timing


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Cases that are compared with each other, never with those of another arm."""

    title: str
    """What is timed: the title of the table."""
    make_cases: Callable[[torch.device], Sequence[Case]]
    """Builds the cases for a device, ready to run."""
    reference: str
    """The name of the case that all ratios refer to."""
    uses_device: bool
    """Whether `--device` applies; if not, everything runs on the CPU."""
    findings: Callable[[Mapping[str, Timing]], dict[str, float]] = lambda timings: {}
    """Numbers derived from the timings, by their description: printed below the table."""
    columns: Callable[[Mapping[str, Timing]], dict[str, dict[str, float]]] = lambda timings: {}
    """More columns of the table: by their header, a number for each case."""
    measurements: Callable[[torch.device], dict[str, float]] = lambda device: {}
    """Numbers besides times, by their description: measured before the cases are built, printed below the table."""
