"""Killed one step before a thaw, at it, or one after, and carried on from what lay on disk: the run is the same."""

from __future__ import annotations

import signal

import pytest

from tests.support.processes import run_module
from tests.support.runs.killed import THAWS, run
from tests.support.training import same


@pytest.mark.slow
@pytest.mark.parametrize("step", [step + off for step in THAWS for off in (-1, 0, 1)])
def test_it_carries_on_bitwise(step, tmp_path) -> None:
    whole, module = run(tmp_path / "whole")
    status, *_ = run_module("tests.support.runs.killed", tmp_path / "killed", step, may_fail=True)
    assert status == -signal.SIGKILL
    saved = max((tmp_path / "killed").glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert saved.stem == f"step={step}"
    again, resumed = run(tmp_path / "again", ckpt_path=saved)
    assert same(resumed.state_dict(), module.state_dict())
    assert same(again.optimizers[0].state_dict(), whole.optimizers[0].state_dict())
