"""Weights & Biases: tables as `wandb.Table`, pictures as `wandb.Image`, under the keys that curves would have."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .table import LoggedTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class WandbStore:
    """Writes to the run of a W&B logger.

    Through its `log_metrics`, which adds the logger's prefix and `trainer/global_step`, and gives W&B no step of its
    own, so that no row is dropped for a step that was logged before.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def write_table(self, tag: str, table: LoggedTable, step: int) -> None:
        """Log all rows: the panel of a table shows what was logged last."""
        import wandb

        rows = [list(row) for row in table.rows]
        self._logger.log_metrics({tag: wandb.Table(columns=list(table.columns), data=rows)}, step=step)

    def write_picture(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture of shape (height, width, 3)."""
        import wandb

        self._logger.log_metrics({tag: wandb.Image(picture)}, step=step)


def find_wandb_store(logger: Any) -> WandbStore | None:
    """The store of a logger with a W&B run; there is none where W&B is disabled."""
    wandb_run = sys.modules.get("wandb.sdk.wandb_run")
    is_run = wandb_run is not None and isinstance(getattr(logger, "experiment", None), wandb_run.Run)
    return WandbStore(logger) if is_run else None
