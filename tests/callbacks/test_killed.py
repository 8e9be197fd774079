"""A run that is killed around a thaw, and resumed from what is on disk, ends bitwise as an uninterrupted one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from tests.support.equality import equal
from tests.support.processes import run_module
from tests.support.runs.killed import THAW_STEPS, train
from tests.support.training import Net

pytestmark = pytest.mark.slow

STEPS = [step + offset for step in THAW_STEPS for offset in (-1, 0, 1)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each step, left behind by a process that was killed after it."""
    folder = tmp_path_factory.mktemp("killed")
    _, out, _ = run_module("tests.support.runs.killed", folder, *STEPS)
    assert json.loads(out.splitlines()[-1]) == {str(step): signal.SIGKILL for step in STEPS}
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Net]:
    return train(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_resumes_bitwise(step, killed, uninterrupted, tmp_path) -> None:
    saved = max((killed / str(step)).glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert saved.stem == f"step={step}"
    trainer, module = uninterrupted
    resumed_trainer, resumed = train(tmp_path, ckpt_path=saved)
    assert equal(resumed.state_dict(), module.state_dict())
    assert equal(resumed_trainer.optimizers[0].state_dict(), trainer.optimizers[0].state_dict())
