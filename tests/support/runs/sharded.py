"""Train with StagedUnfreeze under FSDP2, or in one process at the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.distributed.fsdp import MixedPrecisionPolicy

from lightning_optim import StagedUnfreeze
from tests.support.runs.common import RankNet, RootlessNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"step": 3}, "lr_scale": 0.1, "warmup_steps": 3},
}


class MixedNet(ShardedNet):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)


MODULES = {"one process": RankNet, "root": ShardedNet, "no root": RootlessNet, "mixed": MixedNet}


def read(trainer: Trainer, module: LightningModule) -> Any:
    optimizer = trainer.optimizers[0]
    groups = [(group["name"], group["lr"], group["param_names"]) for group in optimizer.param_groups]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [{key: to_full(value) for key, value in optimizer.state[p].items()} for p in params]
    return groups, [to_full(p) for p in params], states


def train_in_stages(
    folder: Path, *, num_ranks: int, module: str, strategy: str = "fsdp2", ckpt_path: str | None = None
) -> list[Any]:
    """After each of 8 optimizer steps: groups, parameters and states; saves `step=<n>.ckpt` after each."""
    torch.manual_seed(0 if ckpt_path is None else 1)
    trace = StepTrace(read)
    fit_on_ranks(
        MODULES[module](configured()), folder, StagedUnfreeze(PLAN), trace, num_ranks=num_ranks, strategy=strategy,
        save=ckpt_path is None, ckpt_path=ckpt_path, accumulate_grad_batches=2, seed=0 if ckpt_path is None else 1,
    )  # fmt: skip
    return trace.steps
