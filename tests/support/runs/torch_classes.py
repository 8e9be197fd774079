"""Train with one of torch's classes on one rank, or on two under FSDP2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_optim import OptimizerFactory
from tests.support.runs.common import RankNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

FACTORIES = {
    "sgd": OptimizerFactory("sgd", lr=0.05, momentum=0.9),
    "adagrad": OptimizerFactory("adagrad", lr=0.05),
    "adamw": OptimizerFactory("adamw", lr=0.05),
    "adam, amsgrad": OptimizerFactory("adam", lr=0.05, amsgrad=True),
    "sgd + lion": OptimizerFactory(
        "sgd", lr=0.05, momentum=0.9, groups={"h": {"params": "head", "optimizer": "lion", "lr": 0.01}}
    ),
}


def train(folder: Path, *, num_ranks: int, optimizer: str, ckpt_path: str | None = None) -> list[Any]:
    """The fused flags and the weights after each step."""

    def read(trainer: Any, module: Any) -> Any:
        flags = [group.get("fused") for group in trainer.optimizers[0].param_groups]
        return flags, {name: to_full(p) for name, p in module.named_parameters()}

    torch.manual_seed(0)
    trace, configure = StepTrace(read), configured(FACTORIES[optimizer])
    module = RankNet(configure) if num_ranks == 1 else ShardedNet(configure)
    fit_on_ranks(
        module, folder, trace, num_ranks=num_ranks, strategy="fsdp2", save=ckpt_path is None, ckpt_path=ckpt_path,
        epochs=2,
    )  # fmt: skip
    return trace.steps
