"""All optimizers of matrices and a scheduled decay in two processes: replicas and shards agree, and resume bitwise."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from tests.support.equality import equal
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs import matrices
from tests.support.runs.matrices import DECAY, NUM_STEPS, OPTIONS

pytestmark = pytest.mark.slow

STRATEGIES = ["ddp", "fsdp2", "fsdp2-full"]
RESUMED_FROM = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder, jobs = tmp_path_factory.mktemp("matrices"), {}
    for strategy in STRATEGIES:
        jobs[strategy] = Job("matrices", "train", {"strategy": strategy})
        path = str(folder / strategy / f"step={RESUMED_FROM}.ckpt")
        jobs[f"{strategy} resumed"] = Job("matrices", "train", {"strategy": strategy, "ckpt_path": path})
    return run_on_two_ranks(folder, jobs)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return matrices.train(tmp_path_factory.mktemp("one"), num_ranks=1, strategy="ddp")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_member_trains_as_in_one_process_and_resumes_bitwise(results, one_process, strategy) -> None:
    first, second = results[strategy]
    assert equal(first, second)
    assert len(first) == NUM_STEPS
    for (groups, weights, _), (expected_groups, expected, _) in zip(first, one_process, strict=True):
        assert groups == expected_groups
        assert groups.keys() == {"default", "no_decay", *OPTIONS}
        for name, value in weights.items():
            # Sums over the ranks' batches round in another order.
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-4, msg=name)
    for resumed in results[f"{strategy} resumed"]:
        assert equal(resumed, first[RESUMED_FROM:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_scheduled_decay_is_the_formula_and_goes_on_after_a_resume(results, strategy) -> None:
    start, final = DECAY["start"], DECAY["final"]
    expected = [final + 0.5 * (start - final) * (1 + math.cos(math.pi * t / NUM_STEPS)) for t in range(NUM_STEPS)]
    decays = [groups["default"][1] for groups, *_ in results[strategy][0]]
    assert decays in (pytest.approx(expected, rel=1e-12), pytest.approx([*expected[1:], final], rel=1e-12))
    for resumed in results[f"{strategy} resumed"]:
        assert [groups["default"][1] for groups, *_ in resumed] == decays[RESUMED_FROM:]
        assert {groups["no_decay"][1] for groups, *_ in resumed} == {0.0}
