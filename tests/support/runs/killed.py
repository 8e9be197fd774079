"""Train in stages, in a process that kills itself with SIGKILL after some optimizer step.

`python -m tests.support.runs.killed FOLDER STEP ...` runs one process for each step, in `FOLDER/STEP`, and prints how
they ended: the number of the signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.training import Net, fit

THAW_STEPS = (3, 6)
PLAN = {
    "head": {"params": "head"},
    "top": {"params": "backbone.3", "at": {"step": THAW_STEPS[0]}, "lr_scale": 0.25, "warmup_steps": 4},
    "rest": {"params": "backbone", "at": {"step": THAW_STEPS[1]}, "lr_scale": 0.1},
}
OPTIMIZER, SCHEDULER = OptimizerFactory("adamw", lr=0.05), SchedulerFactory("warmup_cosine", warmup_steps=2)


class Kill(Callback):
    """Kills the process at the start of the batch after `step` optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> tuple[Trainer, Net]:
    torch.manual_seed(0)
    module = Net(lambda module: configure_optimizers(module, OPTIMIZER, SCHEDULER), dropout=0.3)
    seed = 1 if ckpt_path is None else 2
    every = (StagedUnfreeze(PLAN), RNGState(), *callbacks)
    return fit(module, folder, *every, epochs=3, save=True, ckpt_path=ckpt_path, seed=seed), module


def train_and_kill(folder: Path, step: int) -> int:
    """The signal that has ended the process."""
    child = os.fork()
    if child == 0:
        train(folder, Kill(step))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


if __name__ == "__main__":
    folder, *steps = sys.argv[1:]
    print(json.dumps({step: train_and_kill(Path(folder) / step, int(step)) for step in steps}))
