"""Print an optimizer's group table or unfreeze plan at fit start, on rank zero."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from weakref import WeakSet

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ..core.output_width import output_width

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ..groups.table import Table

_PRINTED: WeakSet[Optimizer] = WeakSet()


def print_table(optimizer: Optimizer, table: Table, *, force: bool = False) -> None:
    """Print a table, unless one was printed for this optimizer before: several callbacks may call this.

    Args:
        optimizer: the optimizer that the table describes.
        table: its param groups, or its unfreeze plan.
        force: print it even if a table was printed before.
    """
    if force or optimizer not in _PRINTED:
        _PRINTED.add(optimizer)
        rank_zero_info(f"\n{table.text(output_width(sys.stderr))}")  # Lightning logs to stderr
