"""`RunWriter`: the event files of many TensorBoard runs, written by one thread."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

_FLUSH_S = 5.0
"""As Lightning's own curves are on disk with each logged step, so that both grow together."""
_MAX_WAITING = 100
"""Steps; `write` then waits for the thread."""
_FILE_NUMBERS = count()


class RunTags(NamedTuple):
    """What a step adds to one run."""

    folder: str
    tags: tuple[str, ...]
    indices: tuple[int, ...]
    """Of the tags' values among those of the step."""


_Step = tuple[Sequence[RunTags], Sequence[float], int, float]
"""The runs, the values, the step and its time in seconds since the epoch."""


class RunWriter:
    """Appends steps to runs. Each run has a file, created with its first step; all of them share one thread.

    torch's `SummaryWriter` has a thread for each file: with 16 groups a step would wake 17 of them.

    Args:
        flush_s: the longest time that a step waits to be on disk, in seconds.
        suffix: of the files' names.
        purge_step: TensorBoard hides what earlier files of the same folders have from this step on; None: nothing.

    Raises:
        OSError: if a file could not be written.
    """

    def __init__(self, flush_s: float = _FLUSH_S, suffix: str = "", purge_step: int | None = None) -> None:
        self._flush_s, self._suffix, self._purge_step = min(flush_s, _FLUSH_S), suffix, purge_step
        self._files: dict[str, _RunFile] = {}
        self._queue: queue.Queue[_Step | threading.Event | None] = queue.Queue(_MAX_WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="OptimizerMonitor", daemon=True)
        self._thread.start()

    def write(self, runs: Sequence[RunTags], values: Sequence[float], step: int) -> None:
        """Add a step to some runs; returns before it is on disk."""
        self._raise_error()
        self._queue.put((runs, values, step, time.time()))

    def flush(self) -> None:
        """Wait until everything is on disk."""
        done = threading.Event()
        self._queue.put(done)
        done.wait()
        self._raise_error()

    def close(self) -> None:
        """Wait until everything is on disk, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error:
            raise OSError(f"the curves of the param groups could not be written: {self._error}") from self._error

    def _run(self) -> None:
        """The thread: it outlives an error, so that nobody waits for it; the next call of a method raises it."""
        flush_at = 0.0  # the first step is on disk at once
        while True:
            is_pending = any(file.is_pending for file in self._files.values())
            try:
                item = self._queue.get(timeout=max(flush_at - time.monotonic(), 0.0) if is_pending else None)
            except queue.Empty:
                pass
            else:
                if item is None or isinstance(item, threading.Event):
                    self._attempt(self._flush)
                    if item is None:
                        return
                    item.set()
                else:
                    self._attempt(self._add, *item)
            if time.monotonic() >= flush_at:
                self._attempt(self._flush)
                flush_at = time.monotonic() + self._flush_s

    def _attempt(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as error:
            self._error = error

    def _add(self, runs: Sequence[RunTags], values: Sequence[float], step: int, wall_time: float) -> None:
        for folder, tags, indices in runs:
            if folder not in self._files:
                self._files[folder] = _RunFile(folder, self._suffix, self._purge_step)
            self._files[folder].add(tags, [values[index] for index in indices], step, wall_time)

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()


class _RunFile:
    """An event file, and its records that are not on disk yet."""

    def __init__(self, folder: str, suffix: str, purge_step: int | None) -> None:
        from tensorboard.compat import tf
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        tf.io.gfile.makedirs(folder)
        # As tensorboard.summary.writer.event_file_writer names them, but so that names of one second sort by number.
        created, number = int(time.time()), next(_FILE_NUMBERS)
        name = f"events.out.tfevents.{created:010d}.{socket.gethostname()}.{os.getpid()}.{number:06d}{suffix}"
        self._file = tf.io.gfile.GFile(os.path.join(folder, name), "wb")
        self._records = RecordWriter(self)
        self._pending: list[bytes] = []
        self._events: dict[tuple[str, ...], Any] = {}
        """By the tags of a step: the message to fill in, as nearly all steps have the same tags."""
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        if purge_step is not None:
            start = Event(step=purge_step, session_log=SessionLog(status=SessionLog.START))
            self._records.write(start.SerializeToString())

    @property
    def is_pending(self) -> bool:
        """Whether there are records that are not on disk."""
        return bool(self._pending)

    def add(self, tags: tuple[str, ...], values: Sequence[float], step: int, wall_time: float) -> None:
        """Add an event with all values of a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = self._events.get(tags)
        if event is None:
            event = self._events[tags] = Event(summary=Summary(value=[Summary.Value(tag=tag) for tag in tags]))
        event.step, event.wall_time = step, wall_time
        for item, value in zip(event.summary.value, values, strict=True):
            item.simple_value = value
        self._records.write(event.SerializeToString())

    def write(self, record: bytes) -> None:
        """Take a record from TensorBoard's `RecordWriter`."""
        self._pending.append(record)

    def flush(self) -> None:
        """Append what is pending to the file."""
        if self._pending:
            self._file.write(b"".join(self._pending))
            self._file.flush()
            self._pending.clear()
