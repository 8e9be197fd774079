"""Callbacks in two DDP processes: replicas stay bitwise equal, agree with one process, and resume bitwise.

The jobs of the fast tests run in one pair of processes, those of the slow ones in another.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.equality import equal
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs import algorithms, ddp, monitor, plateau

Results = dict[str, list[Any]]

THAW = ddp.PLAN["backbone"]["at"]["step"]
MONITOR = {"module": "ddp", "clip": 0.05}
ALGORITHMS_RESUMED = [("as saved", 3), ("renamed", 4), ("split", 4)]
# After which optimizer steps a plateau run is saved and resumed: within epochs, at their ends, around the thaw.
SAVED = {"steps": [1, 4, 10], "validations": [4, 12]}


@contextmanager
def quiet() -> Iterator[None]:
    """The one-process runs warn about their loaders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """What the fast jobs return on each rank."""

    def checkpoint(job: str, step: int) -> str:
        return str(folder / job / f"step={step}.ckpt")

    jobs = {
        "stages": Job("ddp", "train_in_stages"),
        "stages resumed": Job("ddp", "train_in_stages", {"ckpt_path": checkpoint("stages", THAW)}),
        "static graph": Job("ddp", "train_with_static_graph"),
        "frozen rule": Job("ddp", "train_with_frozen_rule"),
        "nonfinite": Job("ddp", "train_with_nonfinite"),
        "hessian": Job("hessian", "train"),
        "monitor": Job("monitor", "train", MONITOR),
        "algorithms": Job("algorithms", "train"),
        "algorithms resumed": Job("algorithms", "train", {"ckpt_path": checkpoint("algorithms", 3), "rules": "split"}),
    }
    return run_on_two_ranks(folder, jobs)


@pytest.fixture(scope="module")
def slow_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the slow jobs return on each rank."""
    folder = tmp_path_factory.mktemp("slow")
    jobs = {
        "stages": Job("ddp", "train_in_stages"),
        "algorithms": Job("algorithms", "train"),
        **{
            f"stages resumed from {step}": Job(
                "ddp", "train_in_stages", {"ckpt_path": str(folder / "stages" / f"step={step}.ckpt")}
            )
            for step in (THAW - 1, THAW + 1)
        },
        **{
            f"plateau {metric}": Job("plateau", "train_and_resume", {"metric": metric, **SAVED})
            for metric in plateau.METRICS
        },
        **{
            f"algorithms {rules} from {step}": Job(
                "algorithms", "train", {"ckpt_path": str(folder / "algorithms" / f"step={step}.ckpt"), "rules": rules}
            )
            for rules, step in ALGORITHMS_RESUMED
        },
    }
    return run_on_two_ranks(folder, jobs)


# Stages


def test_replicas_are_bitwise_equal_after_every_step(results) -> None:
    first, second = results["stages"]
    assert len(first) == 8
    assert equal(first, second)
    every = ["head", "head.no_decay", "backbone", "backbone.no_decay"]
    assert [groups for groups, _ in first] == [every[:2]] * THAW + [every] * (8 - THAW)


def test_replicas_agree_with_one_process_at_the_same_global_batch(results, tmp_path) -> None:
    with quiet():
        reference = ddp.train_in_stages(tmp_path, num_ranks=1)
    for (_, params), (_, expected) in zip(results["stages"][0], reference, strict=True):
        # A mean of two means of float32 gradients; Adam divides them by their own size.
        torch.testing.assert_close(params, expected, rtol=0, atol=1e-6)


def test_replicas_resume_bitwise_at_the_thaw(results) -> None:
    for resumed in results["stages resumed"]:
        assert equal(resumed, results["stages"][0][THAW:])


@pytest.mark.slow
@pytest.mark.parametrize("step", [THAW - 1, THAW + 1], ids=["before the thaw", "after the thaw"])
def test_replicas_resume_bitwise_around_the_thaw(slow_results, step) -> None:
    for resumed in slow_results[f"stages resumed from {step}"]:
        assert equal(resumed, slow_results["stages"][0][step:])


def test_replicas_of_a_static_graph_stay_equal_at_the_thaw_under_manual_optimization(results, tmp_path) -> None:
    """Lightning averages the first gradients of a static graph itself, and there is a new graph at the thaw."""
    first, second = results["static graph"]
    assert equal(first, second)
    with quiet():
        reference = ddp.train_with_static_graph(tmp_path, num_ranks=1)
    assert len(first) == len(reference) == 8
    for (groups, params), (expected_groups, expected) in zip(first, reference, strict=True):
        assert groups == expected_groups
        # A mean of two means of float32 gradients; Adam divides them by their own size.
        torch.testing.assert_close(params, expected, rtol=0, atol=1e-6)


def test_the_reducer_is_rebuilt_for_a_rule_that_freezes(results) -> None:
    first, second = results["frozen rule"]
    assert len(first) == 8
    assert equal(first, second)
    frozen, trained = ([params[index] for _, params in first] for index in (0, 4))
    assert torch.equal(frozen[0], frozen[-1])
    assert not torch.equal(trained[0], trained[-1])


def test_a_step_with_nonfinite_gradients_on_one_rank_is_skipped_on_all(results) -> None:
    first, second = results["nonfinite"]
    assert equal(first, second)
    assert [counts for counts, _ in first] == [[0] * 8] * ddp.NONFINITE_STEP + [[1] * 8] * 4
    (_, before), (_, after), (_, later) = first[ddp.NONFINITE_STEP - 1 : ddp.NONFINITE_STEP + 2]
    assert equal(before, after)
    assert not equal(after, later)
    assert all(p.isfinite().all() for p in first[-1][1])


# Other callbacks


def check_plateau(ranks: list[Any], num_checkpoints: int) -> None:
    """Each rank continues with its own partial result of the metric."""
    first, second = ranks
    assert equal(first, second)
    full, end = first.pop("full")
    assert len({dict(groups)["head"] for groups, _ in full}) > 1, "no lr was reduced"
    assert len(first) == num_checkpoints
    wrong = []
    for name, (steps, last) in first.items():
        done = int(Path(name).stem.removeprefix("step="))
        wrong += [] if equal(steps, full[done:]) and equal(last, end) else [name]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("metric", plateau.METRICS)
def test_reduce_on_plateau_resumes_bitwise_on_every_rank_for_every_reduction(slow_results, metric) -> None:
    check_plateau(slow_results[f"plateau {metric}"], len(SAVED["steps"]) + len(SAVED["validations"]))


def test_the_hessian_is_estimated_on_the_global_batch(results) -> None:
    first, second = results["hessian"]
    assert equal(first["hessians"], second["hessians"])
    assert equal(first["weights"], second["weights"])
    # By hand: (1 - β2) B times the square of the mean of the ranks' gradients, each at its own labels.
    for name, hessian in first["hessians"][0].items():
        mean = (first["grads"][name] + second["grads"][name]) / 2
        torch.testing.assert_close(hessian, 0.01 * 8 * mean.square(), rtol=1e-5, atol=1e-12)
    assert not equal(first["grads"], second["grads"])


def test_the_monitor_logs_the_values_of_one_process_without_a_collective(results, tmp_path) -> None:
    (values, counts, metrics), (_, other_counts, other_metrics) = results["monitor"]
    assert counts == other_counts == [{}] * 8
    assert metrics == other_metrics, "EarlyStopping would decide differently on each rank"
    with quiet():
        expected, _, _ = monitor.train(tmp_path, num_ranks=1, **MONITOR)
    assert values.keys() == expected.keys()
    assert {tag.split("/")[0] for tag in values} == {"optim", "optim_param"}
    for tag, points in expected.items():
        assert [step for step, _ in values[tag]] == [step for step, _ in points], tag
        assert [v for _, v in values[tag]] == pytest.approx([v for _, v in points], rel=1e-5, abs=1e-7), tag


# Several algorithms in one optimizer


def test_replicas_of_several_algorithms_agree_with_one_process(results, tmp_path) -> None:
    first, second = results["algorithms"]
    assert len(first) == 9
    assert equal(first, second)
    with quiet():
        reference = algorithms.train(tmp_path, num_ranks=1)
    for step, expected in zip(first, reference, strict=True):
        assert step["lrs"] == expected["lrs"]
        for name, param in step["params"].items():
            # A mean of two means of float32 gradients; Adam divides them by their own size.
            torch.testing.assert_close(param, expected["params"][name], rtol=0, atol=1e-6)
    assert not equal(first[0]["params"], first[-1]["params"])


def check_algorithms_resumed(ranks: list[Any], full: list[Any], done: int) -> None:
    for resumed in ranks:
        assert equal(resumed[0]["states"], full[done]["states"])
        assert equal([step["params"] for step in resumed], [step["params"] for step in full[done:]])
        assert equal([step["lrs"] for step in resumed[1:]], [step["lrs"] for step in full[done + 1 :]])


def test_several_algorithms_resume_bitwise_under_split_rules(results) -> None:
    check_algorithms_resumed(results["algorithms resumed"], results["algorithms"][0], 3)


@pytest.mark.slow
@pytest.mark.parametrize(("rules", "step"), ALGORITHMS_RESUMED)
def test_several_algorithms_resume_bitwise_under_renamed_and_split_rules(slow_results, rules, step) -> None:
    check_algorithms_resumed(slow_results[f"algorithms {rules} from {step}"], slow_results["algorithms"][0], step)
