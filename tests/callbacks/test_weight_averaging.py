"""Lightning's EMAWeightAveraging beside our optimizers, stages and monitor: it averages right, and resumes bitwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.averaged_fits import NUM_STEPS, PLAN, AveragedNet, Weights, copies
from tests.support.equality import equal
from tests.support.training import fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning"),
]

DECAY = 0.75
SIGNS = {"signs": {"params": "head", "optimizer": "lion", "lr": 0.01}}
MUON = {"hidden": {"params": "*", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}}
FACTORIES = {
    "an optimizer of ours, with a modifier": OptimizerFactory("lion", lr=0.01, lookahead={"k": 3, "alpha": 0.5}),
    "several of ours": OptimizerFactory("adabelief", lr=0.05, groups=SIGNS),
    "ours and torch's": OptimizerFactory("adamw", implementation="auto", lr=0.05, groups=MUON),
}


def run(folder: Path, factory: OptimizerFactory, ckpt_path: Path | None = None) -> tuple[AveragedNet, Weights]:
    torch.manual_seed(0 if ckpt_path is None else 7)
    module = AveragedNet()
    module.configure = lambda own: configure_optimizers(own, factory, SchedulerFactory("cosine_annealing"))
    weights = Weights()
    callbacks = [EMAWeightAveraging(decay=DECAY), StagedUnfreeze(PLAN), OptimizerMonitor(1), weights]
    fit(
        module, folder, *callbacks, epochs=3, val_check_interval=2, save=ckpt_path is None, ckpt_path=ckpt_path,
        logger=CSVLogger(folder),
    )  # fmt: skip
    return module, weights


@pytest.mark.parametrize("name", FACTORIES)
def test_the_average_is_that_of_its_formula_and_resumes_bitwise(name, tmp_path) -> None:
    module, weights = run(tmp_path, FACTORIES[name])
    average: Any = None
    averages = {}
    for step, shown in weights.at("train"):
        average = (
            shown if average is None else [DECAY * a + (1 - DECAY) * p for a, p in zip(average, shown, strict=True)]
        )
        averages[step] = average
    for step, shown in weights.at("validation"):
        torch.testing.assert_close(shown, averages[step], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(copies(module), averages[NUM_STEPS], rtol=1e-5, atol=1e-6)
    for step in (3, 5, 8):  # in an epoch, before the thaw, at the end of an epoch
        resumed, later = run(tmp_path / "resumed", FACTORIES[name], tmp_path / f"step={step}.ckpt")
        assert equal(later.at("train"), [(at, shown) for at, shown in weights.at("train") if at > step]), step
        assert equal(copies(resumed), copies(module)), step
