"""A study of one worker, which waits to be killed: `python -m tests.support.runs.study FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from recipes.studies.records import Measured, Run
from recipes.studies.results import Results


def report_and_wait(run: Run) -> Measured:
    """Write the number of threads of this process, and do not end."""
    folder = Path(run.split)
    (folder / "writing").write_text(f"{torch.get_num_threads()} thread", encoding="utf-8")
    (folder / "writing").rename(folder / "worker")
    time.sleep(300)
    raise AssertionError


if __name__ == "__main__":
    Results(Path(sys.argv[1]) / "study.jsonl", 1, report_and_wait).get([Run((), sys.argv[1])])
