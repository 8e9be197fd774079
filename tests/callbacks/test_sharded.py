"""Callbacks under FSDP2 in two processes: they agree with one process at the same global batch, and resume bitwise.

All jobs run in one pair of processes.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.support.equality import equal
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs import monitor, sharded

pytestmark = pytest.mark.slow

Results = dict[str, list[Any]]

NUM_STEPS = 8
THAW = sharded.PLAN["backbone"]["at"]["step"]
STRATEGIES = ["fsdp2", "fsdp2-full"]
# A fit of two ranks takes a second: pairs of values meet once.
RESUMED_AT = {
    ("root", "fsdp2"): (THAW - 1, THAW, THAW + 1),
    ("no root", "fsdp2"): (THAW - 1,),
    ("root", "fsdp2-full"): (THAW,),
    ("no root", "fsdp2-full"): (THAW + 1,),
}
SEVERAL_RESUMED = [
    ("fsdp2", "as saved", 4),
    ("fsdp2", "renamed", 3),
    ("fsdp2-full", "as saved", 3),
    ("fsdp2-full", "renamed", 4),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the jobs return on each rank."""
    folder, jobs = tmp_path_factory.mktemp("sharded"), {}
    for (module, strategy), steps in RESUMED_AT.items():
        arguments = {"module": module, "strategy": strategy}
        name = f"stages, {module}, {strategy}"
        jobs[name] = Job("sharded", "train_in_stages", arguments)
        for step in steps:
            from_step = {**arguments, "ckpt_path": str(folder / name / f"step={step}.ckpt")}
            jobs[f"{name} from {step}"] = Job("sharded", "train_in_stages", from_step)
    for module in ("root", "no root"):
        jobs[f"monitor, {module}"] = Job("monitor", "train", {"module": module})
    jobs["by hand"] = Job("algorithms", "train", {"module": "by hand", "strategy": "fsdp2"})
    for strategy in STRATEGIES:
        arguments = {"module": "sharded", "strategy": strategy}
        name = f"algorithms, {strategy}"
        jobs[name] = Job("algorithms", "train", arguments)
    for strategy, rules, step in SEVERAL_RESUMED:
        name = f"algorithms, {strategy}"
        from_step = {"module": "sharded", "strategy": strategy, "rules": rules}
        from_step["ckpt_path"] = str(folder / name / f"step={step}.ckpt")
        jobs[f"{name}, {rules} from {step}"] = Job("algorithms", "train", from_step)
    for strategy in STRATEGIES:
        name = f"algorithms, {strategy}"
        for rules in ("split", "added", "exchanged"):
            from_step = {"module": "sharded", "strategy": strategy, "rules": rules}
            from_step["ckpt_path"] = str(folder / name / "step=3.ckpt")
            jobs[f"{name}, {rules} from 3"] = Job("algorithms", "train", from_step, may_raise=True)
    jobs["mixed precision"] = Job("sharded", "train_in_stages", {"module": "mixed"}, may_raise=True)
    return run_on_two_ranks(folder, jobs)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sharded.train_in_stages(tmp_path_factory.mktemp("one"), num_ranks=1, module="one process")


@pytest.mark.parametrize(("module", "strategy"), RESUMED_AT)
def test_stages_agree_with_one_process_and_resume_bitwise_around_the_thaw(
    results, one_process, module, strategy
) -> None:
    name = f"stages, {module}, {strategy}"
    first, second = results[name]
    assert len(first) == NUM_STEPS
    assert equal(first, second)
    assert [[name for name, *_ in groups] for groups, *_ in first] == [
        ["head", "head.no_decay", *(["backbone", "backbone.no_decay"] if step >= THAW else [])]
        for step in range(NUM_STEPS)
    ]
    for (groups, weights, _), (expected_groups, expected, _) in zip(first, one_process, strict=True):
        assert groups == expected_groups
        # Sums over the shards' batches round in another order.
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    for step in RESUMED_AT[module, strategy]:
        for resumed in results[f"{name} from {step}"]:
            assert equal(resumed, first[step:]), step


def test_stages_refuse_a_precision_other_than_the_parameters_before_the_first_step(results) -> None:
    for error in results["mixed precision"]:
        assert error.startswith("ConfigError: stages: ")
        assert "MixedPrecisionPolicy(param_dtype=torch.bfloat16)" in error and "bf16-mixed" in error


@pytest.mark.parametrize("module", ["root", "no root"])
def test_the_monitor_logs_the_values_of_one_process_with_one_collective(results, module, tmp_path) -> None:
    (values, counts, metrics), (_, other_counts, other_metrics) = results[f"monitor, {module}"]
    assert counts == other_counts == [{"all_reduce": 1}] * NUM_STEPS
    assert metrics == other_metrics, "EarlyStopping would decide differently on each rank"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _, _ = monitor.train(tmp_path, num_ranks=1)
    assert values.keys() == expected.keys()
    assert {tag.split("/")[0] for tag in values} == {"optim", "optim_param"}
    for tag, points in expected.items():
        assert [step for step, _ in values[tag]] == [step for step, _ in points], tag
        assert [v for _, v in values[tag]] == pytest.approx([v for _, v in points], rel=1e-5, abs=1e-7), tag


# Several algorithms in one optimizer


def test_several_algorithms_are_bitwise_two_optimizers_stepped_by_hand(results) -> None:
    first, second = results["algorithms, fsdp2"]
    by_hand, _ = results["by hand"]
    assert len(first) == NUM_STEPS + 1
    assert equal(first, second)
    assert equal([step["params"] for step in first], [step["params"] for step in by_hand])
    for name, param in first[0]["params"].items():
        assert not torch.equal(param, first[-1]["params"][name]), name
    assert set(first[-1]["states"]["backbone.0.weight"]) == {"momentum_buffer", "step"}


@pytest.mark.parametrize(("strategy", "rules", "step"), SEVERAL_RESUMED)
def test_several_algorithms_resume_bitwise(results, strategy, rules, step) -> None:
    full, _ = results[f"algorithms, {strategy}"]
    for resumed in results[f"algorithms, {strategy}, {rules} from {step}"]:
        assert equal(resumed[0]["states"], full[step]["states"])
        assert equal([s["params"] for s in resumed], [s["params"] for s in full[step:]])
        assert equal([s["lrs"] for s in resumed[1:]], [s["lrs"] for s in full[step + 1 :]])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rules", ["split", "added", "exchanged"])
def test_a_checkpoint_under_other_rules_is_loaded_by_name_or_refused(results, strategy, rules) -> None:
    """torch refuses a distributed checkpoint with fewer param groups than the optimizer has."""
    full, _ = results[f"algorithms, {strategy}"]
    ranks = results[f"algorithms, {strategy}, {rules} from 3"]
    if strategy == "fsdp2" and rules in ("split", "added"):
        assert all(error.startswith("CheckpointException") and "param_groups" in error for error in ranks)
        return
    for resumed in ranks:
        assert equal(resumed[0]["states"], full[3]["states"])
        assert equal(resumed[0]["params"], full[3]["params"])
        for step, expected in zip(resumed[1:], full[4:], strict=True):
            for name, lr in expected["lrs"].items():
                factor = 2 if rules != "split" and name.startswith("head") else 1
                # The factor is rounded once.
                assert step["lrs"][name] == pytest.approx(factor * lr, rel=1e-14), name
        if rules == "split":
            assert equal([s["params"] for s in resumed], [s["params"] for s in full[3:]])
