"""Results as JSON lines: one for each run, so that an interrupted study goes on where it was."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from pathlib import Path

from lightning_optim import ConfigError

from .records import Measured, Run


def measure_in_worker(run: Run) -> Measured:
    """Carry out a run; only a worker imports what that takes."""
    from .run import measure

    return measure(run)


class Results:
    """The results of all runs so far, in a file.

    Args:
        file: read if it exists; a line cut by a kill is left out.
        num_workers: processes, of one thread each.
        measure_run: carries out a run.

    Raises:
        ConfigError: a line in the middle of the file is not one of ours.
    """

    def __init__(
        self, file: Path, num_workers: int, measure_run: Callable[[Run], Measured] = measure_in_worker
    ) -> None:
        self._file, self._num_workers, self._measure = file, num_workers, measure_run
        self._known = dict(_read(file)) if file.exists() else {}
        self._pool: ProcessPoolExecutor | None = None

    def get(self, runs: Sequence[Run]) -> list[Measured]:
        """The results of these runs in their order; those that are missing are carried out first."""
        missing = [run for run in dict.fromkeys(runs) if run not in self._known]
        for number, (run, measured) in enumerate(self._carry_out(missing), start=1):
            self._add(run, measured)
            print(f"{number} of {len(missing)}: {measured.accuracy:.3f} in {measured.wall_s:.1f} s", file=sys.stderr)
        return [self._known[run] for run in runs]

    def _carry_out(self, runs: Sequence[Run]) -> Iterator[tuple[Run, Measured]]:
        if self._num_workers == 0:
            yield from ((run, self._measure(run)) for run in runs)
            return
        if not runs:
            return
        if self._pool is None:  # for all calls, as a worker takes seconds to start
            self._pool = ProcessPoolExecutor(self._num_workers, get_context("spawn"), _prepare_worker)
        pending = {self._pool.submit(self._measure, run): run for run in runs}
        try:
            for done in as_completed(pending):
                yield pending[done], done.result()
        except BaseException:
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise

    def _add(self, run: Run, measured: Measured) -> None:
        self._known[run] = measured
        line = json.dumps({"split": run.split, "overrides": list(run.overrides), **asdict(measured)})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _prepare_worker() -> None:
    from .run import prepare_worker

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    prepare_worker()


def _exit_with_parent() -> None:
    """End this worker when the study is killed: its queue would not tell."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(file: Path) -> Iterable[tuple[Run, Measured]]:
    text = file.read_text(encoding="utf-8")
    complete, _, cut = text.rpartition("\n")
    if cut:
        file.write_text(complete + "\n" if complete else "", encoding="utf-8")
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            row = json.loads(line)
            yield Run(tuple(row.pop("overrides")), row.pop("split")), Measured(**row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{file}: line {number} is not a result of this study ({error}). Remove it") from error
