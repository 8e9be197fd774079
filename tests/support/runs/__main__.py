"""`python -m tests.support.runs FOLDER`: runs the jobs of `FOLDER/jobs.json` on two ranks; see `tests.support.ranks`.

The first job's Trainer starts the process of rank 1 and the process group; the other jobs use them too.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    for name, spec in json.loads((root / "jobs.json").read_text(encoding="utf-8")).items():
        run(name, spec, root)
    os._exit(0)  # gloo's threads can abort a normal exit
