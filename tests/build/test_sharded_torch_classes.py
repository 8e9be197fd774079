"""torch's classes under FSDP2 in two processes: SGD and Adagrad, whose fused kernels take no shards, and Adam's."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.support.equality import equal
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs import torch_classes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, jobs = tmp_path_factory.mktemp("sharded"), {}
    for name in torch_classes.FACTORIES:
        jobs[name] = Job("torch_classes", "train", {"optimizer": name})
        from_step = {"optimizer": name, "ckpt_path": str(folder / name / "step=4.ckpt")}
        jobs[f"{name} from 4"] = Job("torch_classes", "train", from_step)
    return run_on_two_ranks(folder, jobs)


@pytest.mark.parametrize("name", torch_classes.FACTORIES)
def test_a_sharded_run_is_that_of_one_process_and_resumes_bitwise(results, name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch_classes.train(tmp_path, num_ranks=1, optimizer=name)
    first, second = results[name]
    assert equal(first, second)
    for (flags, weights), (_, unsharded) in zip(first, expected, strict=True):
        assert flags[0] is (True if name.startswith("adam") else None)
        # Sums over the shards' batches round in another order.
        torch.testing.assert_close(weights, unsharded, rtol=0, atol=1e-5)
    assert [equal(resumed, first[4:]) for resumed in results[f"{name} from 4"]] == [True, True]
