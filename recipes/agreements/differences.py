"""`Difference`: a parameter that only one side exempts from weight decay, and `Reason`: why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

UNEXPLAINED = "unexplained"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A parameter that one side exempts from weight decay and the other does not."""

    name: str
    shape: tuple[int, ...]
    owner: type[nn.Module]
    """The class of the module that it belongs to."""
    is_ours: bool
    """Whether it is our rule that exempts it."""
    is_exempt_in_timm: bool = False
    """Whether it is in a model of timm and exempt by timm's own rule."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why some parameters are exempt on one side only."""

    text: str
    applies: Callable[[Difference], bool]
    is_missed_norm: bool = False
    """Whether these are norm layers that the library does not recognize."""


def find_reason(difference: Difference, reasons: Sequence[Reason]) -> Reason | None:
    """The first reason that applies."""
    return next((reason for reason in reasons if reason.applies(difference)), None)
