"""Jobs on a rank, one after the other; the first one's Trainer starts the process group, which the others use too."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch


def run(name: str, spec: dict[str, Any], root: Path) -> None:
    folder = root / name
    folder.mkdir(exist_ok=True)
    function = getattr(import_module(f"tests.support.runs.{spec['module']}"), spec["function"])
    try:
        result = function(folder, num_ranks=2, **spec["arguments"])
    except BaseException as error:  # CheckpointException of torch.distributed.checkpoint is no Exception
        if not spec["may_raise"]:
            raise
        result = f"{type(error).__name__}: {error}"
    torch.save(result, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.barrier()


def run_all(jobs: dict[str, dict[str, Any]], root: Path) -> None:
    for name, spec in jobs.items():
        run(name, spec, root)
