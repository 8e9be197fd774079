"""`python -m tests.support.runs FOLDER`: runs the jobs of `FOLDER/jobs.json` on two ranks; see `tests.support.ranks`.

The first job's Trainer starts the process group; the other jobs use it too.
"""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.support.runs.forked_ranks import run_on_forked_ranks


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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    jobs = json.loads((root / "jobs.json").read_text(encoding="utf-8"))
    for spec in jobs.values():
        import_module(f"tests.support.runs.{spec['module']}")
    run_on_forked_ranks(partial(run_all, jobs, root))
