"""StagedUnfreeze in two processes: replicas stay bitwise equal, and equal one process at the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import run_module
from tests.support.runs.ddp import POISONED_AT
from tests.support.training import same


def _run(folder: Path, devices: int, *ckpt_path: str) -> list[Any]:
    folder.mkdir()
    run_module("tests.support.runs.ddp", folder, devices, *ckpt_path, timeout_s=120)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(devices)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Any]:
    return _run(folder / "two", 2)


def test_replicas_are_bitwise_equal_after_every_step(two) -> None:
    first, second = two
    assert len(first) == 8
    assert same(first, second)
    everything = ["head", "head.no_decay", "backbone", "backbone.no_decay"]
    assert [groups for groups, _ in first] == [everything[:2]] * 2 + [everything] * 6


def test_they_equal_one_process_at_the_same_global_batch(folder, two) -> None:
    (one,) = _run(folder / "one", 1)
    for (_, ours), (_, reference) in zip(two[0], one, strict=True):
        for a, b in zip(ours, reference, strict=True):
            # A mean of two means of float32 gradients; Adam divides them by their own size.
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3], ids=["before", "at", "after"])
def test_resumes_bitwise(folder, two, step) -> None:
    for again in _run(folder / f"from{step}", 2, str(folder / "two" / f"step={step}.ckpt")):
        assert same(again, two[0][step:])


@pytest.mark.slow
def test_a_rule_that_freezes_does_not_stop_the_reducer(folder) -> None:
    first, second = _run(folder / "frozen", 2, "frozen")
    assert len(first) == 8
    assert same(first, second)
    stem, others = ([params[index] for _, params in first] for index in (0, 4))
    assert torch.equal(stem[0], stem[-1])
    assert not torch.equal(others[0], others[-1])


@pytest.mark.slow
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(folder) -> None:
    first, second = _run(folder / "poisoned", 2, "poisoned")
    assert same(first, second)
    assert [counts for counts, _ in first] == [[0] * 8] * POISONED_AT + [[1] * 8] * 4
    (_, before), (_, after) = first[POISONED_AT - 1 : POISONED_AT + 1]
    assert same(before, after)
    assert not same(after, first[POISONED_AT + 1][1])
    assert all(p.isfinite().all() for p in first[-1][1])
