"""`python -m tests.support.runs FOLDER`: the jobs of `FOLDER/jobs.json` on two ranks; see `tests.support.ranks`."""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from tests.support.runs.forked_ranks import run_on_forked_ranks
from tests.support.runs.jobs import run_all

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    jobs = json.loads((root / "jobs.json").read_text(encoding="utf-8"))
    for spec in jobs.values():
        import_module(f"tests.support.runs.{spec['module']}")
    run_on_forked_ranks(partial(run_all, jobs, root))
