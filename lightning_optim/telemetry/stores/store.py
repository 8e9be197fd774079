"""`Store`: where a logger keeps tables and pictures, and the one that a logger has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .mlflow import find_mlflow_store
from .table import LoggedTable
from .tensorboard import find_tensorboard_store
from .wandb import find_wandb_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Store(Protocol):
    """A logger's tables and pictures."""

    def write_table(self, tag: str, table: LoggedTable, step: int) -> None:
        """Log a table."""

    def write_picture(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture of shape (height, width, 3)."""


_FIND = (find_tensorboard_store, find_wandb_store, find_mlflow_store)


def find_stores(loggers: Sequence[Any]) -> Iterator[Store]:
    """The stores of those loggers that have one: TensorBoard's, W&B's, MLflow's. CSV files have curves only.

    A logger is known by what its `experiment` is, so that no library is imported for this which is not loaded already.
    On ranks other than zero, Lightning's loggers have a dummy there, which is none of them.
    """
    for logger in loggers:
        for find in _FIND:
            if store := find(logger):
                yield store
