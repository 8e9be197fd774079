"""The recipe `matrices` and the benchmark's arm `matrix`: what they build, train and print."""

from __future__ import annotations

import pytest
import torch

from recipes import matrices
from recipes.benchmarks.matrix import MATRIX, NUM_MATRICES, ONE_BY_ONE, STACKS, TORCH, case_name, make_cases
from recipes.benchmarks.measure import Timing
from recipes.model import DigitsNet


def test_kernels_of_the_backbone_go_to_the_optimizer_of_matrices() -> None:
    factory = matrices.build_factory("muon", 0.02, 1e-3)
    optimizer = factory(DigitsNet(8, 0.0, factory))
    (hidden,) = (group for group in optimizer.param_groups if group["algorithm"] == "muon")
    assert len(hidden["params"]) == 3 and {param.ndim for param in hidden["params"]} == {4}
    assert {group["lr"] for group in optimizer.param_groups if group["algorithm"] == "adamw"} == {1e-3}


def test_scores_depend_on_the_seed_alone() -> None:
    first, again, other = (matrices.train(seed, matrices.build_factory("muon", 0.02, 1e-3), 3) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_optimizer(monkeypatch, capsys) -> None:
    monkeypatch.setattr(matrices, "LRS", {"adamw": (1e-2,), "muon": (0.02,)})
    monkeypatch.setattr(matrices, "_TUNED_ON", (100,))
    matrices.main(["muon", "--steps", "2", "--seeds", "2"])
    printed = capsys.readouterr().out
    assert "after 2 steps" in printed and " of 2" in printed
    with pytest.raises(SystemExit):
        matrices.main(["muonn"])


def test_the_arm_steps_every_matrix_with_each_optimizer() -> None:
    cases = list(make_cases(torch.device("cpu"), {8: 2, 20: 3}))
    names = [case_name(name, size) for size in (8, 20) for name in (ONE_BY_ONE, STACKS, TORCH)]
    assert [case.name for case in cases] == names
    for case in cases:
        case.run()
    timings = {
        case_name(name, size): Timing(median_ms=ms, low_ms=0, high_ms=0)
        for size in NUM_MATRICES
        for name, ms in ((ONE_BY_ONE, 6), (STACKS, 2), (TORCH, 3))
    }
    assert list(MATRIX.findings(timings).values()) == [3, 1.5] * len(NUM_MATRICES)
