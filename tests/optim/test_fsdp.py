"""Every member under FSDP2, in two processes: the sharded run is the whole one."""

from __future__ import annotations

import json

import pytest

from ..processes import run_module
from .driving import MEMBERS

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
)


@pytest.mark.slow
def test_sharded_parameters_train_as_whole_ones(tmp_path):
    run_module("tests.optim.fsdp_run", tmp_path)
    found = json.loads((tmp_path / "differences.json").read_text(encoding="utf-8"))
    assert set(found) == {f"{name} {foreach}" for name in MEMBERS for foreach in (False, True)}
    for name, apart in found.items():
        assert apart["alone"] <= (1e-14 if name.startswith(SUMS) else 0), name
        assert (apart["resumed"], apart["moved"]) == (0, 0), name
