"""Ctrl-C that stops a fit between two batches."""

from __future__ import annotations

import signal
from typing import Any

from lightning.pytorch import Callback


class StopBetweenBatches(Callback):
    """Handles the first Ctrl-C when the current batch is done, and a second one at once.

    Python raises KeyboardInterrupt at whatever line the main thread is. If that is inside the queue of TensorBoard's
    writer, which a monitor feeds at every step, its lock is never released and closing the writer waits forever.
    """

    def __init__(self) -> None:
        self._interrupted = False

    def on_train_start(self, *_: Any) -> None:
        """Install the handler; Lightning restores the previous one after the fit."""
        signal.signal(signal.SIGINT, self._handle_sigint)

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop before the batch if Ctrl-C was pressed."""
        self._raise_if_interrupted()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop before the batch if Ctrl-C was pressed."""
        self._raise_if_interrupted()

    def on_train_end(self, *_: Any) -> None:
        """Stop if Ctrl-C was pressed in the last batch."""
        self._raise_if_interrupted()

    def _handle_sigint(self, number: int, frame: Any) -> None:
        if self._interrupted:
            signal.default_int_handler(number, frame)
        self._interrupted = True

    def _raise_if_interrupted(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
