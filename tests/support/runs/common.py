"""For runs on several ranks: a loader of each rank's rows, modules for DDP and FSDP2, and one way to fit them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from lightning_optim import OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.training import Loader, Net, fit

NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
ADAMW = OptimizerFactory("adamw", lr=0.01, groups=NO_DECAY)
SCHEDULE = SchedulerFactory("cosine_annealing", total_steps=8)


class RankLoader(Loader):
    """This rank's rows of every batch, so that the global batch is the same on any number of ranks."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        super().__init__()
        self.inputs, self.targets = self.inputs[:, rank::num_ranks], self.targets[:, rank::num_ranks]


class RankNet(Net):
    """Loads this rank's rows; has LayerNorm instead of BatchNorm, whose statistics would differ between ranks."""

    def __init__(self, configure: Callable[[Net], Any], dropout: float = 0.0) -> None:
        super().__init__(configure, dropout)
        self.backbone[1] = nn.LayerNorm(8)

    def train_dataloader(self) -> RankLoader:
        return RankLoader(self.trainer.global_rank, self.trainer.world_size)


class ShardedNet(RankNet):
    """Sharded by FSDP2, with the backbone and the head as units."""

    has_root = True
    """Whether the module itself is a unit too, around the others."""
    policy = MixedPrecisionPolicy()

    def units(self) -> list[nn.Module]:
        return [self.backbone, self.head]

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for unit in (*self.units(), *([self] if self.has_root else [])):
            fully_shard(unit, mesh=mesh, mp_policy=self.policy)


class RootlessNet(ShardedNet):
    has_root = False


def configured(optimizer: OptimizerFactory = ADAMW, scheduler: SchedulerFactory = SCHEDULE) -> Callable[[Net], Any]:
    return lambda module: configure_optimizers(module, optimizer, scheduler)


def fit_on_ranks(
    module: LightningModule, folder: Path, *callbacks: Callback, num_ranks: int, strategy: str = "ddp", **arguments: Any
) -> Trainer:
    """Fit on the CPU with 1 rank, or with 2 under a strategy: `ddp`, `fsdp2`, or `fsdp2-full` (one checkpoint file)."""
    if num_ranks == 1:
        chosen: Any = "auto"
    elif strategy == "ddp":
        chosen = "ddp"
    else:
        chosen = ModelParallelStrategy(2, 1, save_distributed_checkpoint=strategy != "fsdp2-full")
    return fit(module, folder, *callbacks, devices=num_ranks, strategy=chosen, **{"seed": 0, **arguments})


def to_full(value: Any) -> Any:
    """A copy of a tensor, gathered if it is sharded; other values as they are."""
    if not isinstance(value, torch.Tensor):
        return value
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()
