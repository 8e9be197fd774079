"""Work in a copy of this process, which may kill itself: a fork takes milliseconds, a new interpreter seconds.

A fork has no CUDA context: `can_fork` is false where torch sees a GPU.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

HANG = "hang"


def can_fork() -> bool:
    """Whether a fork can train."""
    import torch  # here, for the process of pytest-xdist that has no tests

    return hasattr(os, "fork") and not torch.cuda.is_available()


def run_forked(work: Callable[[], object], log: Path, timeout_s: float = 60.0) -> int | str:
    """The exit status of a copy of this process that does some work: 0, 1 for an exception, or minus a signal.

    Args:
        work: what it does.
        log: gets the traceback of an exception.
        timeout_s: after which the copy is killed, and the result is `HANG`.
    """
    return wait_for([start_fork(work, log)], timeout_s)[0]


def run_forked_ranks(
    work: Callable[[int], object], log: Path, timeout_s: float = 60.0, num_ranks: int = 2
) -> list[int | str]:
    """The exit statuses of copies of this process, set up as ranks that something else has started.

    Args:
        work: gets the rank.
        log: `<log>0`, `<log>1` and so on get the tracebacks of exceptions.
        timeout_s: after which all are killed.
        num_ranks: how many copies.
    """
    port = _free_port()

    def start(rank: int) -> int:
        def work_as_rank() -> object:
            os.environ.update(
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0",
                WORLD_SIZE=str(num_ranks), GLOO_SOCKET_IFNAME="lo",
            )  # fmt: skip
            return work(rank)

        return start_fork(work_as_rank, log.with_name(f"{log.name}{rank}"))

    return wait_for([start(rank) for rank in range(num_ranks)], timeout_s)


def start_fork(work: Callable[[], object], log: Path) -> int:
    """The process id of a copy of this process that does some work and exits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process may have threads
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        import torch

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        work()
        status = 0
    except BaseException:
        log.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(status)  # neither pytest's reports nor gloo's threads


def wait_for(pids: list[int], timeout_s: float) -> list[int | str]:
    """The exit status of each process, in this order; those that have not ended in time are killed.

    Time in which this process itself is stopped does not count: the others may have been too.
    """
    statuses: dict[int, int | str] = {}
    last, waited_s = time.monotonic(), 0.0
    while len(statuses) < len(pids):
        for pid in pids:
            if pid not in statuses and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[pid] = os.waitstatus_to_exitcode(ended[1])
        now = time.monotonic()
        waited_s, last = waited_s + min(now - last, 1.0), now
        if waited_s > timeout_s:
            for pid in set(pids) - set(statuses):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                statuses[pid] = HANG
        time.sleep(0.002)
    return [statuses[pid] for pid in pids]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
