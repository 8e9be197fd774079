"""Trains stage by stage and, if asked to, is killed as soon as so many optimizer steps are saved.

`python -m tests.support.runs.killed FOLDER [STEP]`
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.training import Net, fit

THAWS = (3, 6)
PLAN = {
    "head": {"params": "head"},
    "top": {"params": "backbone.3", "at": {"step": THAWS[0]}, "lr_scale": 0.25, "warmup_steps": 4},
    "rest": {"params": "backbone", "at": {"step": THAWS[1]}, "lr_scale": 0.1},
}
EPOCHS = 3


class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> tuple[Trainer, Net]:
    torch.manual_seed(0)
    optimizer, scheduler = OptimizerFactory("adamw", lr=0.05), SchedulerFactory("warmup_cosine", warmup_steps=2)
    module = Net(lambda module: configure_optimizers(module, optimizer, scheduler), dropout=0.3)
    everything = (StagedUnfreeze(PLAN), RNGState(), *callbacks)
    seed = 1 if ckpt_path is None else 2
    return fit(module, folder, *everything, epochs=EPOCHS, save=True, ckpt_path=ckpt_path, seed=seed), module


if __name__ == "__main__":
    run(Path(sys.argv[1]), *(Kill(int(step)) for step in sys.argv[2:]))
