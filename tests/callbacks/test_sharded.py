"""StagedUnfreeze under FSDP2, two processes: they train as one at the same global batch, and resume bitwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import run_module
from tests.support.training import same

pytestmark = pytest.mark.slow
NUM_STEPS, THAW = 8, 3
HOW = [f"{units}-{checkpoints}" for units in ("root", "apart") for checkpoints in ("distributed", "full")]


def _run(folder: Path, how: str, *steps: int) -> list[list[Any]]:
    """What each rank saw, of the whole run and of each resumed one."""
    folder.mkdir()
    run_module("tests.support.runs.sharded", folder, how, *steps, timeout_s=300)
    ranks = range(1 if how == "alone" else 2)
    return [[torch.load(folder / f"rank{r}{end}.pt") for r in ranks] for end in ("", *(f"-step={s}" for s in steps))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return _run(tmp_path_factory.mktemp("sharded") / "alone", "alone")[0][0]


@pytest.mark.parametrize("how", HOW)
def test_two_processes_train_as_one_and_resume_bitwise_around_the_thaw(how, alone, tmp_path) -> None:
    around = (THAW - 1, THAW, THAW + 1)
    (first, second), *resumed = _run(tmp_path / how, how, *around)
    assert len(first) == NUM_STEPS
    assert same(first, second)
    assert [[name for name, *_ in groups] for groups, *_ in first] == [
        ["head", "head.no_decay", *(["backbone", "backbone.no_decay"] if step >= THAW else [])]
        for step in range(NUM_STEPS)
    ]
    for (groups, weights, _), (expected_groups, expected, _) in zip(first, alone, strict=True):
        assert groups == expected_groups
        # Sums over the shards' batches round in another order.
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    for step, (one, other) in zip(around, resumed, strict=True):
        assert same(one, first[step:]), step
        assert same(one, other), step


def test_another_precision_than_the_parameters_is_refused_before_the_first_step(tmp_path) -> None:
    status, _, errors = run_module("tests.support.runs.sharded", tmp_path, "mixed-full", may_fail=True)
    assert status and "MixedPrecisionPolicy(param_dtype=torch.bfloat16)" in errors and "bf16-mixed" in errors
    assert not list(tmp_path.iterdir())
