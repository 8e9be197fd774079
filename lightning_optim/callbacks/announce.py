"""The group table at fit start, on rank zero: what is about to be trained, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from lightning.pytorch.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ..groups.table import Table

_ANNOUNCED: WeakSet[Optimizer] = WeakSet()


def announce(optimizer: Optimizer, table: Table, *, again: bool = False) -> None:
    """Print an optimizer's table, unless one was printed already: several parts of ours may see it first.

    Args:
        optimizer: what the table is of.
        table: its groups, or its unfreeze plan.
        again: print it whatever was printed before.
    """
    if again or optimizer not in _ANNOUNCED:
        _ANNOUNCED.add(optimizer)
        rank_zero_info(f"\n{table}")
