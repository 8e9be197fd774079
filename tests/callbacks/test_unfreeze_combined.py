"""StagedUnfreeze with other features: precision, clipping, torch.compile, averaged weights, monitors, a second fit."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, WeightAveraging
from lightning.pytorch.loggers import CSVLogger

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import BATCHES, Net, StepTrace, fit

PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 6},
}
MUON = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}}
OPTIMIZERS = {
    "adamw": OptimizerFactory("adamw", lr=0.02),
    "muon + adamw": OptimizerFactory("adamw", lr=0.02, groups=MUON),
}
SCHEDULER = SchedulerFactory("warmup_cosine", warmup_steps=2)


class Average(WeightAveraging):
    """Averages the weights of every step, so that a late stage's are included from its thaw on."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None


FEATURES: dict[str, dict[str, Any]] = {
    "bf16-mixed": {"precision": "bf16-mixed"},
    "clipping by norm": {"gradient_clip_val": 0.1},
    "clipping by value, accumulating": {
        "gradient_clip_val": 0.01,
        "gradient_clip_algorithm": "value",
        "accumulate_grad_batches": 2,
    },
    "compiled": {},
    "averaged weights": {},
    "both monitors": {"log_every_n_steps": 1},
}
"""The Trainer's arguments; the last three also change the module, the callbacks or the logger."""


def run(
    folder: Path, optimizer: str, feature: str, ckpt_path: Path | None = None
) -> tuple[Trainer, Net, StepTrace, list[Callback]]:
    torch.manual_seed(0)
    module = Net(lambda module: configure_optimizers(module, OPTIMIZERS[optimizer], SCHEDULER), dropout=0.3)
    trace, arguments = StepTrace(), dict(FEATURES[feature])
    callbacks: list[Callback] = [StagedUnfreeze(PLAN), RNGState(), trace]
    if feature == "compiled":
        module.backbone = torch.compile(module.backbone, backend="eager")
    elif feature == "averaged weights":
        callbacks.append(Average())
    elif feature == "both monitors":
        callbacks += [LearningRateMonitor(), OptimizerMonitor(to_callback_metrics=True)]
        arguments["logger"] = CSVLogger(folder)
    trainer = fit(
        module, folder, *callbacks, epochs=3, save=ckpt_path is None, ckpt_path=ckpt_path,
        seed=1 if ckpt_path is None else 2, **arguments,
    )  # fmt: skip
    return trainer, module, trace, callbacks


@pytest.mark.parametrize(
    ("optimizer", "feature"),
    every(
        product(OPTIMIZERS, FEATURES),
        fast=["muon + adamw, clipping by value, accumulating"],
        id=", ".join,
    ),
)
def test_resumes_bitwise_around_the_thaw(optimizer, feature, tmp_path) -> None:
    torch.compiler.reset()
    trainer, module, trace, callbacks = run(tmp_path, optimizer, feature)
    thaw = BATCHES // FEATURES[feature].get("accumulate_grad_batches", 1)
    before, after = (set(groups) for groups in trace.steps[thaw - 1 : thaw + 1])
    assert before < after
    for step in (thaw - 1, thaw, thaw + 1):
        other, resumed, rest, others = run(tmp_path / "resumed", optimizer, feature, tmp_path / f"step={step}.ckpt")
        assert rest.steps == trace.steps[step:], step
        assert equal(module.state_dict(), resumed.state_dict()), step
        assert equal(trainer.optimizers[0].state_dict(), other.optimizers[0].state_dict()), step
        for one, same in zip(callbacks, others, strict=True):
            if isinstance(one, Average):
                assert equal(one._average_model.state_dict(), same._average_model.state_dict()), step


def test_averaged_weights_include_the_late_stage(tmp_path) -> None:
    module = run(tmp_path, "adamw", "averaged weights")[1]
    first = torch.load(tmp_path / f"step={BATCHES}.ckpt", weights_only=True)
    averaged = dict(module.named_parameters())["backbone.0.weight"]  # Lightning copies the average to it at the end
    assert not torch.equal(averaged, first["state_dict"]["backbone.0.weight"])


def test_a_second_fit_continues_stage_and_warm_up(tmp_path) -> None:
    unfreeze, trace = StagedUnfreeze(PLAN), StepTrace()
    module = Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))
    fit(module, tmp_path, unfreeze, trace, epochs=2)
    fit(module, tmp_path, unfreeze, trace, epochs=1)
    lrs = [groups.get("backbone") for groups in trace.steps]
    assert lrs == [None] * BATCHES + [0.25 * min(1, step / 6) for step in range(1, 2 * BATCHES + 1)]


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|number of training batches)")
def test_a_second_fit_of_the_same_trainer_continues(tmp_path) -> None:
    unfreeze, trace = StagedUnfreeze(PLAN), StepTrace()
    module = Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))
    trainer = fit(module, tmp_path, unfreeze, trace, epochs=2)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, trainer.train_dataloader)
    assert [len(groups) for groups in trace.steps] == [1] * BATCHES + [2] * 2 * BATCHES
