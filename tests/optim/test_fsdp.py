"""Every member under FSDP2, in two processes: the sharded run is the whole one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .driving import MEMBERS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_sharded_parameters_train_as_whole_ones(tmp_path):
    command = [sys.executable, "-m", "tests.optim.fsdp_run", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    found = json.loads((tmp_path / "differences.json").read_text(encoding="utf-8"))
    assert set(found) == {f"{name} {foreach}" for name in MEMBERS for foreach in (False, True)}
    for name, apart in found.items():
        # LAMB's norms are sums over the shards, which round in another order; the rest is element by element.
        assert apart["alone"] <= (1e-14 if name.startswith("lamb") else 0), name
        assert (apart["resumed"], apart["moved"]) == (0, 0), name
