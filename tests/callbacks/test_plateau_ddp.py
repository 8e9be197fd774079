"""ReduceLROnPlateau under stages in two processes: each rank takes up what it had come to of the metric itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.processes import run_module
from tests.support.runs.plateau import EPOCHS, METRICS
from tests.support.training import BATCHES, same


@pytest.mark.parametrize("metric", [pytest.param(m, marks=pytest.mark.slow if m != "mean" else ()) for m in METRICS])
def test_it_resumes_bitwise_on_every_rank(metric, tmp_path) -> None:
    run_module("tests.support.runs.plateau", tmp_path, metric)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
    assert same(first, second)
    seen, end = first.pop("None")
    assert len({dict(groups)["head"] for groups, _ in seen}) > 1, "it must have something to lose"
    assert len(first) == EPOCHS * BATCHES + EPOCHS
    wrong = []
    for path, (saw, last) in first.items():
        step = int(Path(path).stem.removeprefix("step="))
        wrong += [] if same(saw, seen[step:]) and same(last, end) else [path]
    assert wrong == []
