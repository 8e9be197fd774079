"""Tuners, and exceptions on all ranks or on one, with two processes under DDP and FSDP2.

The jobs run in one pair of processes; a run of which only one rank stops, in a pair of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.equality import equal
from tests.support.processes import run_module
from tests.support.ranks import Job, run_on_two_ranks

pytestmark = pytest.mark.slow

# At the thaw, whose stage has no state yet; within a batch; around a validation; before the first step.
CASES = [
    ("on_train_epoch_start", 1, 0),
    ("on_after_backward", 1, 1),
    ("on_train_batch_end", 1, 1),
    ("on_validation_batch_end", 1, 1),
    ("on_train_epoch_end", 1, 0),
    ("on_train_start", 1, 0),
]
STOPS: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp", "metric": "mean", "cases": CASES, "saver": "exception"},
    "ddp, validation": {"strategy": "ddp", "metric": "validation", "cases": CASES[2:5], "saver": "exception"},
    # It does not save where no step was taken.
    "ddp, ModelCheckpoint": {"strategy": "ddp", "metric": "max", "cases": CASES[1:4], "saver": "ModelCheckpoint"},
    "fsdp2": {"strategy": "fsdp2", "metric": "mean", "cases": CASES, "saver": "exception"},
    "fsdp2, one file": {
        "strategy": "fsdp2-full", "metric": "mean", "cases": [CASES[0], CASES[-1]], "saver": "exception"
    },
}  # fmt: skip
TUNED = [("ddp", True), ("ddp", False), ("fsdp2", True)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    jobs = {
        f"tuned, {strategy}, {staged}": Job(
            "tuners", "train_tuned_and_by_hand", {"strategy": strategy, "staged": staged}
        )
        for strategy, staged in TUNED
    }
    jobs["batch size"] = Job("tuners", "find_batch_size", may_raise=True)
    jobs |= {name: Job("stops", "stop_and_resume", arguments) for name, arguments in STOPS.items()}
    return run_on_two_ranks(tmp_path_factory.mktemp("ranks"), jobs)


@pytest.mark.parametrize(("strategy", "staged"), TUNED)
def test_a_suggested_lr_is_as_if_it_were_configured_on_every_rank(results, strategy, staged) -> None:
    first, second = results[f"tuned, {strategy}, {staged}"]
    assert equal(first, second)
    lr, tuned, by_hand = first
    assert lr != 0.001
    assert len(tuned) == 16
    assert equal(tuned, by_hand)


def test_lightning_refuses_to_find_a_batch_size_on_several_ranks(results) -> None:
    assert all("not supported with distributed strategies" in error for error in results["batch size"])


@pytest.mark.parametrize("name", STOPS)
def test_a_run_that_an_exception_stops_on_every_rank_resumes_bitwise(results, name) -> None:
    first, second = results[name]
    full = first.pop("full")
    assert equal(full, second.pop("full"))
    assert len(first) == len(STOPS[name]["cases"])
    wrong = [case for case in first if not (equal(first[case], full) and equal(second[case], full))]
    assert wrong == []


def test_an_exception_on_rank_zero_alone_leaves_a_checkpoint_and_says_what_it_lacks(tmp_path) -> None:
    """Lightning alone leaves one too, and waits for the other rank then."""
    _, _, log = run_module("tests.support.runs.one_rank_stops", tmp_path, timeout_s=180)
    assert (tmp_path / "stopped.ckpt").exists()
    assert log.count("The checkpoint has only this rank's part of the metrics") == 1
