"""What an arm of the benchmark is: cases to compare, and what to say of them beside their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .measure import Case, Timing


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Cases that are compared with each other, never with another arm's."""

    title: str
    """What is timed, for the table's head."""
    make_cases: Callable[[torch.device], Sequence[Case]]
    """All that is timed on this device, built and ready."""
    reference: str
    """The case that the others' ratios are to."""
    uses_device: bool
    """Whether its work is done where `--device` says; if not, it is done on the CPU whatever that says."""
    findings: Callable[[Mapping[str, Timing]], dict[str, float]] = lambda timings: {}
    """What follows from the timings, by what it is: printed below the table."""
