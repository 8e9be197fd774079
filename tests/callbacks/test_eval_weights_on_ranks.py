"""EvalWeights under DDP and FSDP2 in two processes: as in one process at the same global batch, and resumed bitwise."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.support.equality import equal
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs import averaged

pytestmark = pytest.mark.slow

CASES = {
    "ddp": {"module": "replicated"},
    "fsdp2": {"module": "root", "strategy": "fsdp2"},
    "fsdp2, stages": {"module": "root", "strategy": "fsdp2", "stages": True},
    "fsdp2 without a root": {"module": "no root", "strategy": "fsdp2"},
    "fsdp2, one file": {"module": "root", "strategy": "fsdp2-full"},
}
RESUMED = {"ddp": [4], "fsdp2": [3, 4], "fsdp2, stages": [5, 6], "fsdp2 without a root": [4], "fsdp2, one file": [4]}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("averaged")
    jobs = {name: Job("averaged", "train", arguments) for name, arguments in CASES.items()}
    for name, steps in RESUMED.items():
        for step in steps:
            path = str(folder / name / f"step={step}.ckpt")
            jobs[f"{name} from {step}"] = Job("averaged", "train", {**CASES[name], "ckpt_path": path})
    return run_on_two_ranks(folder, jobs)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_losses_are_those_of_one_process(results, name, tmp_path) -> None:
    first, second = results[name]
    assert equal(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stages = CASES[name].get("stages", False)
        expected = averaged.train(tmp_path, num_ranks=1, module="replicated", stages=bool(stages))
    assert [entry[:2] for entry in first] == [entry[:2] for entry in expected]
    for (hook, _, value), (_, _, theirs) in zip(first, expected, strict=True):
        # Sums over the ranks' batches round in another order.
        torch.testing.assert_close(value, theirs, rtol=0, atol=1e-5, msg=hook)


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_resumes_bitwise(results, name) -> None:
    first, _ = results[name]
    for step in RESUMED[name]:
        for resumed in results[f"{name} from {step}"]:
            later = [entry for entry in resumed if entry[1] > step]
            assert equal(later, [entry for entry in first if entry[1] > step]), step
