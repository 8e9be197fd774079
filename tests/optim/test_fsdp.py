"""A member of each kind and every modifier under FSDP2, in two processes: the sharded run is the unsharded one."""

from __future__ import annotations

import json

import pytest

from tests.support.optimizer_runs import MATRIX_MEMBERS
from tests.support.processes import run_module
from tests.support.runs.fsdp import CASES

POWERS = {"storm", "madgrad"}
"""torch's vector code takes another power in a shard of odd size; a kernel gives each element the same bits."""
# Sums over shards round in another order; all else is element by element.
SUMS = POWERS | {
    "lamb",
    "lars",
    "novograd",
    "adamp",
    "adam_mini",
    "ef_sgd",
    "prodigy",
    "mars",
    "stable_adamw",
    "adai",
    "adaptive_clip",
    "cautious_update",
    "centralize_gradients",
    "all",
}


@pytest.mark.slow
def test_sharded_parameters_train_like_unsharded_ones(tmp_path):
    run_module("tests.support.runs.fsdp", tmp_path)
    results = json.loads((tmp_path / "differences.json").read_text(encoding="utf-8"))
    assert set(results) == {f"{name} {case}" for name, case in CASES}
    for run, result in results.items():
        name, case = run.split()
        is_exact = (case == "fused" and name in POWERS) or not {name, case} & SUMS
        assert result["from_unsharded"] <= (0 if is_exact else 1e-14), run
        assert (result["from_uninterrupted"], result["moved_by_loading"]) == (0, 0), run
        # Four parameters, or one matrix, and one step, in which only rank 1 had a gradient that was not finite.
        num_params = 1 if name in MATRIX_MEMBERS else 4
        assert result["num_skipped"] == (num_params if case in ("skip_nonfinite", "all") else 0), run
