"""Runs jobs on two ranks: one pair of processes, forks of this one, for all the jobs of a test file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.support.forks import can_fork, run_forked_ranks
from tests.support.processes import run_module
from tests.support.runs.jobs import run_all


@dataclass(frozen=True)
class Job:
    """A call of `tests.support.runs.<module>.<function>(folder, num_ranks=2, **arguments)` on every rank."""

    module: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    may_raise: bool = False
    """Whether an exception is a result, `"<type>: <message>"`; else it ends the run."""


def run_on_two_ranks(folder: Path, jobs: Mapping[str, Job], timeout_s: int = 500) -> dict[str, list[Any]]:
    """Run the jobs one after the other; returns each job's results, `[rank 0's, rank 1's]`.

    Args:
        folder: a job called `name` gets `folder / name`, and may read the folders of earlier jobs.
        jobs: by name.
        timeout_s: for all of them.
    """
    specs = {name: asdict(job) for name, job in jobs.items()}
    if can_fork():
        for spec in specs.values():
            import_module(f"tests.support.runs.{spec['module']}")
        log = folder / "log"
        statuses = run_forked_ranks(lambda rank: run_all(specs, folder), log, timeout_s)
        logs = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("log[01]"))]
        assert statuses == [0, 0], "\n".join(map(str, [statuses, *logs]))
    else:
        (folder / "jobs.json").write_text(json.dumps(specs), encoding="utf-8")
        run_module("tests.support.runs", folder, timeout_s=timeout_s)
    return {
        name: [torch.load(folder / name / f"rank{rank}.pt", weights_only=False) for rank in range(2)] for name in jobs
    }
