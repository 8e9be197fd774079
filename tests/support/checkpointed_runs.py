"""Runs that are resumed from checkpoints on disk: of each kind one, with every callback and optimizer class of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.training import Net, fit

STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 2}, "lr_scale": 0.5}}
LATE_STAGES = {
    "head": {"params": "head"},
    "top": {"params": "backbone.3", "at": {"step": 1}, "warmup_steps": 3},
    "rest": {"params": "backbone", "at": {"plateau": {"monitor": "loss", "patience": 9}}},
}
HIDDEN = {"params": "backbone", "kinds": ["matrix"]}


class FactoryNet(Net):
    """A network whose hyperparameters are the factories; a checkpoint of it holds them."""

    def __init__(self, optimizer: Any, scheduler: Any) -> None:
        super().__init__(lambda module: configure_optimizers(module, self.hparams.optimizer, self.hparams.scheduler))
        self.save_hyperparameters()


@dataclass(frozen=True)
class Run:
    """How a run is built anew for each resume, and at which step its checkpoint is saved."""

    module: Callable[[], LightningModule]
    callbacks: Callable[[], Sequence[Callback]]
    saved_at: int
    logger: bool = False


RUNS: dict[str, Run] = {
    "torch's adamw, cosine, stages": Run(
        lambda: _net(OptimizerFactory("adamw", lr=0.05), SchedulerFactory("cosine_annealing", T_max=20)),
        lambda: [StagedUnfreeze(STAGES)],
        4,
    ),
    "our lion, plateaus of stages and schedule": Run(
        lambda: _net(
            OptimizerFactory("lion", lr=0.01, weight_decay=0.1, weight_decay_mode="relative"),
            SchedulerFactory("reduce_on_plateau", monitor="loss", patience=1),
        ),
        lambda: [StagedUnfreeze(LATE_STAGES)],
        3,
    ),
    "composite, a curve per group": Run(
        lambda: _net(
            OptimizerFactory(
                "adabelief",
                lr=0.01,
                groups={
                    "hidden": {**HIDDEN, "optimizer": "muon", "lr": 0.02},
                    "head": {"params": "head", "schedule": {"name": "linear", "total_iters": 9}},
                },
            ),
            SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=20),
        ),
        lambda: [RNGState()],
        4,
    ),
    "an override, sgd, one_cycle, the monitor": Run(
        lambda: _net(OptimizerFactory("adamw"), None),
        lambda: [
            OptimizerOverride(
                OptimizerFactory("sgd", lr=0.1, momentum=0.9), SchedulerFactory("one_cycle", total_steps=30)
            ),
            OptimizerMonitor(),
        ],
        4,
        logger=True,
    ),
    "factories in the hyperparameters": Run(
        lambda: FactoryNet(
            OptimizerFactory("adamw", lr=0.01, groups={"head": {"params": "head", "lr_scale": 2.0}}),
            SchedulerFactory(
                "sequential", milestones=[3], schedulers=[{"name": "linear"}, {"name": "exponential", "gamma": 0.9}]
            ),
        ),
        lambda: [StagedUnfreeze({"whole": {"params": "*"}})],
        4,
    ),
}


def _net(optimizer: OptimizerFactory, scheduler: SchedulerFactory | None) -> Net:
    return Net(lambda module: configure_optimizers(module, optimizer, scheduler))


def save_checkpoint(run: Run, folder: Path) -> Path:
    """Train until the checkpoint is saved."""
    loggers = [DummyLogger()] if run.logger else False
    fit(run.module(), folder, *run.callbacks(), epochs=1, save=True, logger=loggers)
    return folder / f"step={run.saved_at}.ckpt"


class Stop(Exception):
    """Raised where a resumed run has gone on for long enough."""


class Probe(Callback):
    """Remembers what a run has resumed with, and stops it after a few steps."""

    def __init__(self, steps: int) -> None:
        self.remaining = steps
        self.loaded: dict[str, Any] | None = None
        """What a checkpoint would hold of our state before the first step; None if training has not started."""
        self.ended: Any = None
        """The weights and the optimizer's state at the end."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loaded = read_state(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            self.ended = deepcopy((pl_module.state_dict(), trainer.optimizers[0].state_dict()))
            raise Stop


def read_state(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint would hold of optimizers, schedulers and callbacks."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    state = {
        "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "lr_schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "callbacks": {c.state_key: c.state_dict() for c in callbacks if type(c).__module__ == "lightning_optim"},
    }
    return deepcopy(state)  # the tensors are the optimizer's own


def resume(run: Run, path: Path, steps: int = 2) -> Probe:
    """Resume from a file for a few steps, by a new module and trainer."""
    probe = Probe(steps)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [DummyLogger()] if run.logger else False
        with suppress(Stop):
            folder = path.parent / "resumed"
            fit(run.module(), folder, *run.callbacks(), probe, epochs=9, ckpt_path=path, logger=loggers)
    return probe
