"""Train with `sharpness` under DDP or FSDP2, or in one process at the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_optim import OptimizerFactory
from tests.support.runs.common import NO_DECAY, RankNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

RHO = 0.3


class DoubleNet(RankNet):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.double())


class ShardedDoubleNet(ShardedNet, DoubleNet):
    pass


def read(trainer: Trainer, module: LightningModule) -> Any:
    return [to_full(p) for p in module.parameters()]


def train(
    folder: Path, *, num_ranks: int, strategy: str = "ddp", adaptive: bool = False, ckpt_path: str | None = None
) -> dict[str, Any]:
    """The parameters after each of 4 steps, in float64, and how often the model was evaluated; saves SAM's steps."""
    torch.manual_seed(0 if ckpt_path is None else 1)
    factory = OptimizerFactory("adamw", lr=0.01, groups=NO_DECAY, sharpness={"rho": RHO, "adaptive": adaptive})
    module = (ShardedDoubleNet if "fsdp" in strategy and num_ranks > 1 else DoubleNet)(configured(factory)).double()
    trace, calls = StepTrace(read), []
    module.head.register_forward_pre_hook(lambda *_: calls.append(1))
    fit_on_ranks(
        module, folder, trace, num_ranks=num_ranks, strategy=strategy, save=ckpt_path is None and not adaptive,
        ckpt_path=ckpt_path, seed=0, epochs=1,
    )  # fmt: skip
    return {"params": trace.steps, "evaluations": len(calls)}
