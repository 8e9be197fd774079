"""A small run in stages whose checkpoints are damaged, and two ways to read one: a resume, and `inspect`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_optim import OptimizerFactory, RNGState, StagedUnfreeze, configure_optimizers
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from tests.support.training import Net, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 2}}}
FACTORY = OptimizerFactory("adamw", lr=0.05)


class Stop(Exception):
    """Raised by a callback."""


class Loaded(Callback):
    """Stops a fit that has loaded its checkpoint, and remembers what it has loaded."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        state = trainer.optimizers[0].state_dict(), pl_module.state_dict(), trainer.current_epoch, trainer.global_step
        self.state = state
        raise Stop


def build_net() -> Net:
    return Net(lambda module: configure_optimizers(module, FACTORY))


def resume(path: Path, *callbacks: Callback) -> Any:
    """What a fit has loaded before its first step."""
    loaded = Loaded()
    callbacks = callbacks or (StagedUnfreeze(PLAN), RNGState())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit(build_net(), path.parent / "runs", *callbacks, loaded, epochs=9, ckpt_path=path)
        except Stop:
            return loaded.state
    raise AssertionError("the fit has not started")


def inspect(path: Path) -> Any:
    return read_checkpoint(path)


def write_checkpoint(folder: Path) -> Path:
    """The checkpoint of a real run in stages, after both have thawed."""
    torch.manual_seed(0)
    fit(build_net(), folder, StagedUnfreeze(PLAN), RNGState(), epochs=1, save=True)
    return folder / "step=4.ckpt"


def as_data(saved: Any) -> Any:
    """What `inspect` has read, in plain types."""
    return [(it.key, [(g.name, g.params, g.hyperparameters) for g in it.groups], it.state) for it in saved]
