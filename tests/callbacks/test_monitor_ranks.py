"""OptimizerMonitor in two processes: the values of one process at the same global batch, for one collective a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import run_module

STEPS = 8


def _run(folder: Path, how: str) -> list[Any]:
    run_module("tests.support.runs.monitor", folder, how, timeout_s=120)
    return [torch.load(path) for path in sorted(folder.glob(f"{how}?.pt"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "collectives"), [("ddp", {}), ("root", {"all_reduce": 1}), ("apart", {"all_reduce": 1})]
)
def test_values_are_those_of_one_process(how, collectives, tmp_path) -> None:
    ((expected, _, _),) = _run(tmp_path, "alone" if how == "ddp" else "alone_unclipped")
    (values, counts, metrics), (_, other_counts, other_metrics) = _run(tmp_path, how)
    assert counts == other_counts == [collectives] * STEPS
    assert metrics == other_metrics, "what EarlyStopping sees must not differ between ranks"
    assert values.keys() == expected.keys()
    assert {tag.split("/")[0] for tag in values} == {"optim", "optim_param"}
    for tag, points in expected.items():
        assert [step for step, _ in values[tag]] == [step for step, _ in points], tag
        assert [v for _, v in values[tag]] == pytest.approx([v for _, v in points], rel=1e-5, abs=1e-7), tag
