"""`python -m tests.support.runs.one_rank_stops FOLDER`: an exception stops rank zero of two, which writes a checkpoint.

Lightning then waits for the other rank: this process ends itself and the other one instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from lightning_optim.callbacks import rank_gather
from tests.support.runs.forked_ranks import run_on_forked_ranks
from tests.support.runs.stops import train
from tests.support.stopped_runs import SaveOnException, stop_at


def exit_when_written(path: Path) -> None:
    """End both processes once the checkpoint is there; the other one waits for a gradient.

    The other one ends first: a rank whose peer is gone stops with an exception of its own, and says so in the log.
    """
    deadline = time.monotonic() + 100
    wait_for(path, deadline)
    time.sleep(0.2)
    (path.parent / "written").touch()
    wait_for(path.parent / "rank_one_ends", deadline)
    time.sleep(0.5)
    os._exit(0)


def exit_when_told(folder: Path) -> None:
    wait_for(folder / "written", time.monotonic() + 120)
    (folder / "rank_one_ends").touch()
    os._exit(0)


def wait_for(path: Path, deadline: float) -> None:
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rank_gather.TIMEOUT_S = 2.0
    path = folder / "stopped.ckpt"
    is_rank_zero = os.environ["LOCAL_RANK"] == "0"
    watch, argument = (exit_when_written, path) if is_rank_zero else (exit_when_told, folder)
    watcher = threading.Thread(target=watch, args=(argument,))
    watcher.start()
    stop = stop_at("on_train_batch_end", 1 if is_rank_zero else 100, 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(RuntimeError):  # of Lightning's barrier, once the other rank is gone
        train(folder, "ddp", "mean", stop, SaveOnException(path))
    watcher.join()


if __name__ == "__main__":
    run_on_forked_ranks(partial(main, Path(sys.argv[1])))
