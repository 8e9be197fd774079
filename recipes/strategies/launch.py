"""`launch`: runs workers, one process for each rank, and starts anew after one that dies or hangs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from .rows import ROWS, Row

ROOT = Path(__file__).parents[2]


def launch(folder: Path, names: Sequence[str], timeout_s: float = 120.0) -> None:
    """Try strategies; a row whose processes die is left without some results.

    Args:
        folder: exists; each row gets a folder of its name.
        names: of rows.
        timeout_s: for one fit.
    """
    for _, group in groupby(sorted(names, key=_processes), key=_processes):
        remaining = list(group)
        while remaining:
            _run(folder, remaining, timeout_s)
            # The first one without an end is the one that died.
            remaining = [name for name in remaining if not (folder / name / "done0").exists()][1:]


def _processes(name: str) -> tuple[str, int]:
    """What can run in the same processes."""
    row = ROWS[name]
    return row.launcher, row.ranks


def _run(folder: Path, names: Sequence[str], timeout_s: float) -> None:
    command = [sys.executable, "-m", "recipes.strategies.worker", str(folder), *names]
    processes = []
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        for environment in _environments(ROWS[names[0]]):
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip
    try:
        _wait(processes, folder, names, timeout_s)
    finally:
        for process in processes:
            _kill(process)


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path, names: Sequence[str], timeout_s: float) -> None:
    """Return when all have ended, one has failed, or nothing was done for too long."""
    num_done, since = 0, time.monotonic()
    while True:
        statuses = [process.poll() for process in processes]
        if None not in statuses or any(statuses):
            return
        done = sum(1 for name in names for _ in (folder / name).glob("*/*"))
        if done > num_done:
            num_done, since = done, time.monotonic()
        if time.monotonic() - since > timeout_s:
            return
        time.sleep(0.05)


def _environments(row: Row) -> list[dict[str, str]]:
    """Of each process: as a cluster sets them for Lightning; one without, where Lightning starts the ranks."""
    if row.launcher:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(row.ranks)}
    return [{**shared, "LOCAL_RANK": str(rank)} for rank in range(row.ranks)]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
