"""TensorBoard: tables as Markdown on its Text page, pictures on its Images page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .table import LoggedTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardStore:
    """Writes to the run of a TensorBoard logger."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def write_table(self, tag: str, table: LoggedTable, step: int) -> None:
        """Log the table's Markdown: its new rows where it says only those."""
        self._writer.add_text(tag, table.markdown, step)

    def write_picture(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture of shape (height, width, 3)."""
        self._writer.add_image(tag, picture, step, dataformats="HWC")


def find_tensorboard_store(logger: Any) -> TensorBoardStore | None:
    """The store of a logger with a TensorBoard writer."""
    writer = find_writer(logger)
    return TensorBoardStore(writer) if writer else None


def find_writer(logger: Any) -> SummaryWriter | None:
    """A TensorBoard logger's writer; on ranks other than zero Lightning returns a dummy, which is none."""
    experiment = getattr(logger, "experiment", None)
    # Not imported for this check: it loads 200 modules. Where there is a writer, they are loaded.
    tensorboard = sys.modules.get("torch.utils.tensorboard")
    return experiment if tensorboard is not None and isinstance(experiment, tensorboard.SummaryWriter) else None
