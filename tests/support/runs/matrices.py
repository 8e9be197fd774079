"""Train with every optimizer of matrices in one optimizer, and a decay that a schedule drives, under DDP and FSDP2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory
from tests.support.runs.common import NO_DECAY, RankNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

# In the parameters' dtype and without signs, in which rounding does not grow.
OPTIONS: dict[str, dict[str, Any]] = {
    "muon": {"lr": 0.02, "ns_dtype": "parameter"},
    "normuon": {"lr": 0.02, "ns_dtype": "parameter"},
    "adamuon": {"lr": 0.02, "ns_dtype": "parameter", "sign": False, "eps": 1e-3},
    "soap": {"lr": 0.01, "precondition_frequency": 2, "eps": 0.1},
    "shampoo": {"lr": 0.1, "precondition_frequency": 2, "eps": 1e-3},
}
LAYERS = {name: f"backbone.{index}.weight" for index, name in enumerate(OPTIONS)}
NUM_STEPS = 8
DECAY = {"start": 0.04, "final": 0.4}
FACTORY = OptimizerFactory(
    "adamw",
    lr=0.01,
    weight_decay=DECAY["start"],
    groups={
        **NO_DECAY,
        **{
            name: {"params": LAYERS[name], "optimizer": name, "weight_decay": DECAY["start"], **options}
            for name, options in OPTIONS.items()
        },
    },
)
SCHEDULE = SchedulerFactory(
    "warmup_cosine",
    warmup_steps=2,
    total_steps=NUM_STEPS,
    also={"weight_decay": {"name": "cosine", "final": DECAY["final"]}},
)


def _deepen(module: Any) -> None:
    module.backbone = nn.Sequential(nn.Linear(4, 9), *(nn.Linear(9, 9) for _ in range(3)), nn.Linear(9, 8))


class Replicated(RankNet):
    def __init__(self, configure: Any) -> None:
        super().__init__(configure)
        _deepen(self)


class Sharded(ShardedNet):
    def __init__(self, configure: Any) -> None:
        super().__init__(configure)
        _deepen(self)


def read(trainer: Trainer, module: LightningModule) -> Any:
    optimizer = trainer.optimizers[0]
    groups = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    states = {
        name: {key: to_full(value) for key, value in optimizer.state[p].items()}
        for name, p in module.named_parameters()
    }
    return groups, {name: to_full(p) for name, p in module.named_parameters()}, states


def train(folder: Path, *, num_ranks: int, strategy: str, ckpt_path: str | None = None) -> list[Any]:
    """After each of 8 optimizer steps: each group's lr and decay, parameters and states; saves `step=<n>.ckpt`."""
    torch.manual_seed(0 if ckpt_path is None else 1)
    trace = StepTrace(read)
    cls = Replicated if strategy == "ddp" else Sharded
    fit_on_ranks(
        cls(configured(FACTORY, SCHEDULE)), folder, trace, num_ranks=num_ranks, strategy=strategy,
        save=ckpt_path is None, ckpt_path=ckpt_path, epochs=2, seed=0 if ckpt_path is None else 1,
    )  # fmt: skip
    return trace.steps
