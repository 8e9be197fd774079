"""Every member and every modifier under FSDP2, in two processes: the sharded run is the whole one."""

from __future__ import annotations

import json

import pytest

from tests.support.optimizer_runs import MEMBERS
from tests.support.processes import run_module
from tests.support.runs.fsdp import TRIED

# Sums over the shards round in another order, and so does a power of a shard's odd end; the rest is element by element.
SUMS = (
    "lamb",
    "lars",
    "novograd",
    "adamp",
    "adam_mini",
    "ef_sgd",
    "prodigy",
    "storm",
    "mars",
    "stable_adamw",
    "adai",
    "madgrad",
    "adaptive_clip",
    "cautious_update",
    "centralize_gradients",
    "all",
)


@pytest.mark.slow
def test_sharded_parameters_train_as_whole_ones(tmp_path):
    run_module("tests.support.runs.fsdp", tmp_path)
    found = json.loads((tmp_path / "differences.json").read_text(encoding="utf-8"))
    plain = {f"{name} {foreach}" for name in MEMBERS for foreach in (False, True)}
    assert set(found) == plain | {f"{name} {modifier}" for name, modifier in TRIED}
    for run, apart in found.items():
        name, modifier = run.split()
        assert apart["alone"] <= (1e-14 if name in SUMS or modifier in SUMS else 0), run
        assert (apart["resumed"], apart["moved"]) == (0, 0), run
        # Six parameters, one step: rank 1 alone saw what was not finite.
        assert apart["skipped"] == (6 if modifier in ("skip_nonfinite", "all") else 0), run
