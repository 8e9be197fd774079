"""The event files of many runs from one thread: on disk soon, complete when closed, and errors are raised."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_optim.telemetry.run_writer import RunTags, RunWriter


def runs_of(folder: Path) -> list[RunTags]:
    """Two runs; the values of a step alternate between them."""
    return [RunTags(str(folder / name), ("a", "b"), (index, index + 2)) for index, name in enumerate(("one", "two"))]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard reads a run."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_run_has_its_values(tmp_path) -> None:
    begun, writer, runs = time.time(), RunWriter(), runs_of(tmp_path)
    for step in range(5):
        writer.write(runs, [step, step + 0.25, step + 0.5, step + 0.75], step)
    writer.write(runs[:1], [7, 0, 8], 9)
    writer.close()
    assert read(tmp_path / "one") == {
        "a": [*((step, step) for step in range(5)), (9, 7)],
        "b": [*((step, step + 0.5) for step in range(5)), (9, 8)],
    }
    assert read(tmp_path / "two")["b"] == [(step, step + 0.75) for step in range(5)]
    times = [event.wall_time for event in EventAccumulator(str(tmp_path / "two")).Reload().Scalars("a")]
    assert begun <= times[0] <= times[-1] <= time.time()


def test_a_step_is_on_disk_without_a_close(tmp_path) -> None:
    writer, runs = RunWriter(flush_s=0.05), runs_of(tmp_path)
    for step in range(2):
        writer.write(runs, [1.0, 2.0, 3.0, 4.0], step)
        deadline = time.monotonic() + 20
        while len(read(tmp_path / "two").get("a", []) if (tmp_path / "two").exists() else []) <= step:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    writer.close()


def test_a_flush_waits_until_everything_is_on_disk(tmp_path) -> None:
    writer, runs = RunWriter(), runs_of(tmp_path)
    for step in range(3):
        writer.write(runs, [1.0, 2.0, 3.0, 4.0], step)
    writer.flush()
    assert len(read(tmp_path / "one")["a"]) == len(read(tmp_path / "two")["b"]) == 3
    writer.close()


def test_earlier_files_are_purged_from_a_step_on(tmp_path) -> None:
    for start, purge in ((0, None), (3, 3)):
        writer = RunWriter(purge_step=purge)
        for step in range(start, start + 5):
            writer.write(runs_of(tmp_path), [start] * 4, step)
        writer.close()
    assert read(tmp_path / "one")["a"] == [(0, 0), (1, 0), (2, 0), *((step, 3) for step in range(3, 8))]


def test_an_error_is_raised_and_blocks_nobody(tmp_path) -> None:
    (tmp_path / "one").write_text("a file in the place of the folder")
    before, writer = threading.active_count(), RunWriter()

    def write_more_than_the_queue_holds() -> None:
        for step in range(1000):
            writer.write(runs_of(tmp_path), [0.0] * 4, step)
            time.sleep(0.001)

    with pytest.raises(OSError, match="the curves of the param groups could not be written"):
        write_more_than_the_queue_holds()
    for wait in (writer.flush, writer.close):
        with pytest.raises(OSError, match="could not be written"):
            wait()
    assert threading.active_count() == before
