"""The plan and the thaws of a run in its loggers, and those before a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_optim import OptimizerFactory, RNGState, StagedUnfreeze, configure_optimizers
from tests.support.tensorboard_events import fit_with_events, read_texts
from tests.support.training import BATCHES, Net

PLAN = {
    "head": {"params": "head"},
    "top": {"params": "backbone.3", "at": {"epoch": 1}, "lr_scale": 0.1},
    "rest": {"params": "backbone", "at": {"epoch": 2}},
}
TOP = {"step": BATCHES, "epoch": 1, "stage": "top", "groups": "top"}
REST = {"step": 2 * BATCHES, "epoch": 2, "stage": "rest", "groups": "rest"}


def run(folder: Path, **arguments: Any) -> StagedUnfreeze:
    unfreeze = StagedUnfreeze(PLAN)
    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.01)))
    fit_with_events(folder, module, RNGState(), unfreeze, epochs=3, save=True, **arguments)
    return unfreeze


def test_a_resumed_run_knows_the_thaws_before(tmp_path) -> None:
    full = run(tmp_path / "full")
    assert full._thaw_log.rows == [TOP, REST]
    ((step, plan),) = read_texts(tmp_path / "full", "optim/plan")
    assert step == 0
    assert "| top | epoch 1 | adamw | 2 | 72 | 0.1 | 0.001 | 0.01 |  |" in plan
    checkpoint = next((tmp_path / "full").glob(f"step={BATCHES + 1}*.ckpt"))
    resumed = run(tmp_path / "resumed", ckpt_path=checkpoint)
    assert resumed._thaw_log.rows == [TOP, REST]
    assert [text for _, text in read_texts(tmp_path / "resumed", "optim/plan")] == [plan]
    texts = read_texts(tmp_path / "resumed", "optim/thaw")
    assert texts == [(2 * BATCHES, "epoch 2, step 8: 'rest' thaws (rest)")]
