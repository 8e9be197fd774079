"""Ctrl-C that stops a fit between two batches."""

from __future__ import annotations

import signal
from typing import Any

from lightning.pytorch import Callback


class StopBetweenBatches(Callback):
    """Takes the first Ctrl-C when the batch is done, a second one at once.

    Python raises KeyboardInterrupt wherever the main thread stands. Where that is in the queue of TensorBoard's writer,
    which a monitor feeds at every step, the lock of the queue is never released, and closing the writer waits forever.
    """

    def __init__(self) -> None:
        self._asked = False

    def on_train_start(self, *_: Any) -> None:
        """Listen; Lightning puts every handler back after the fit."""
        signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop, if asked to."""
        self._stop_if_asked()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop, if asked to."""
        self._stop_if_asked()

    def on_train_end(self, *_: Any) -> None:
        """Stop, if asked to in the last batch."""
        self._stop_if_asked()

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True

    def _stop_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt
