"""Train on two ranks with Lightning's LearningRateFinder among the callbacks, and as it would be configured by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from lightning_optim import OptimizerFactory, SchedulerFactory, StagedUnfreeze
from tests.support.runs.common import RankNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"fraction": 0.5}, "lr_scale": 0.5}}
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=3)


def read(trainer: Trainer, module: LightningModule) -> Any:
    lrs = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    return lrs, [to_full(parameter) for parameter in module.parameters()]


def train(folder: Path, strategy: str, lr: float, *, staged: bool, tuned: bool) -> tuple[float, list[Any]]:
    groups = {"slow": {"params": "backbone", "lr_scale": 0.1}, "fast": {"params": "head.bias", "lr": 5 * lr}}
    configure = configured(OptimizerFactory("adamw", lr=lr, groups=groups), COSINE)
    torch.manual_seed(0)
    module: Any = (ShardedNet if strategy == "fsdp2" else RankNet)(configure)
    module.lr, trace = lr, StepTrace(read)
    finder = LearningRateFinder(num_training_steps=20, early_stop_threshold=None, max_lr=0.1)
    callbacks = [*([StagedUnfreeze(PLAN)] if staged else []), *([finder] if tuned else []), trace]
    fit_on_ranks(module, folder, *callbacks, num_ranks=2, strategy=strategy)
    return module.lr, trace.steps


def train_tuned_and_by_hand(folder: Path, *, num_ranks: int, strategy: str, staged: bool) -> Any:
    """The suggested lr, and the steps of the run that was tuned and of one whose config has that lr."""
    lr, tuned = train(folder, strategy, 0.001, staged=staged, tuned=True)
    return lr, tuned, train(folder, strategy, lr, staged=staged, tuned=False)[1]


def find_batch_size(folder: Path, *, num_ranks: int) -> None:
    fit_on_ranks(RankNet(configured()), folder, StagedUnfreeze(PLAN), BatchSizeFinder(), num_ranks=num_ranks)
