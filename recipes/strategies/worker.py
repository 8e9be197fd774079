"""`python -m recipes.strategies.worker FOLDER ROW...`: tries strategies in this process, which is one of the ranks.

Where Lightning starts the ranks itself, as for `ddp_spawn`, this process starts them.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .by_hand import train
from .fits import fit, read_trace
from .parts import REFERENCES, build_parts, resumed_from
from .rows import ROWS, Row


def folder_of(part: str, step: int | None = None) -> str:
    """The folder of a run, or of one that is resumed after a step."""
    return part if step is None else f"{part}, from step {step}"


def folder_by_hand(part: str) -> str:
    """The folder of a hand-written run."""
    return f"{part}, by hand"


def try_row(row: Row, folder: Path) -> None:
    """Everything that is tried under a strategy; each run writes a trace or an error for each rank."""
    is_fused = False
    for part in build_parts(by_name=row.by_name, is_joint=row.is_joint):
        steps = resumed_from(part.name, is_joint=row.is_joint)
        own = folder / folder_of(part.name)
        _attempt(own, partial(fit, row, part, own, save_at=steps))
        trace = own / f"rank{_rank()}.pt"
        is_fused |= trace.exists() and read_trace(trace)[0].is_fused
        for step in steps:
            path = own / f"step={step}.ckpt"
            if path.exists():
                resumed = folder / folder_of(part.name, step)
                _attempt(resumed, partial(fit, row, part, resumed, ckpt_path=path))
    if row.launcher:
        return
    for reference in REFERENCES:
        own = folder / folder_by_hand(reference)
        _attempt(own, partial(_train_by_hand, row, reference, own, fused=is_fused))


def _train_by_hand(row: Row, part: str, folder: Path, *, fused: bool) -> None:
    torch.save([vars(step) for step in train(row, part, fused=fused)], folder / f"rank{_rank()}.pt")


def _attempt(folder: Path, function: Callable[[], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        function()
    except BaseException as error:
        (folder / f"error{_rank()}.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def main(folder: Path, names: list[str]) -> None:
    """Try these strategies one after the other."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in names:
        try_row(ROWS[name], folder / name)
        (folder / name / f"done{_rank()}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)  # gloo's threads can abort a normal exit
