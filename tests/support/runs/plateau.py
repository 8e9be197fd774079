"""Train with ReduceLROnPlateau and stages on ranks that log different values, and resume from the checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze
from tests.support.runs.common import RankLoader, RankNet, configured, fit_on_ranks
from tests.support.training import StepTrace

EPOCHS = 4
PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
ADAMW = OptimizerFactory("adamw", lr=0.05)
METRICS: dict[str, dict[str, Any]] = {
    "mean": {"sync_dist": True},
    "rank zero's mean": {},
    "max": {"sync_dist": True, "reduce_fx": "max"},
    "sum": {"sync_dist": True, "reduce_fx": "sum"},
    "validation": {"sync_dist": True},
}
"""Arguments of `self.log`, by metric."""
MODES = {"max": "min"}
"""Of the scheduler, chosen so that every lr is reduced at some time; `max` for the other metrics."""


class LoggingNet(RankNet):
    def __init__(self, metric: str) -> None:
        mode = MODES.get(metric, "max")
        schedule = SchedulerFactory(
            "reduce_on_plateau", interval="epoch", monitor=metric, mode=mode, patience=0, factor=0.75
        )
        super().__init__(configured(ADAMW, schedule), dropout=0.3)
        self.metric = metric

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if self.metric != "validation":
            options = {"on_step": False, "on_epoch": True, **METRICS[self.metric]}
            self.log(self.metric, loss, batch_size=3 + batch_idx, **options)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.metric == "validation":
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("validation", loss, **METRICS["validation"])

    def val_dataloader(self) -> Any:
        return RankLoader(self.trainer.global_rank, self.trainer.world_size)


def read(trainer: Trainer, module: LightningModule) -> Any:
    groups = [(group["name"], group["lr"]) for group in trainer.optimizers[0].param_groups]
    return groups, [p.detach().clone() for p in module.parameters()]


def train(folder: Path, num_ranks: int, metric: str, ckpt_path: Path | None = None) -> Any:
    # Each rank draws its own dropout masks, and other ones when it resumes: what is not restored shows.
    seed = int(os.environ.get("LOCAL_RANK", 0)) + (10 if ckpt_path else 0)
    torch.manual_seed(seed)
    trace, module = StepTrace(read), LoggingNet(metric)
    after_steps = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    after_validations = ModelCheckpoint(folder / "validation", "{step}", every_n_epochs=1, save_top_k=-1)
    saving = [] if ckpt_path else [after_steps, after_validations]
    trainer = fit_on_ranks(
        module, folder, StagedUnfreeze(PLAN), RNGState(), trace, *saving, num_ranks=num_ranks, seed=seed,
        epochs=EPOCHS, ckpt_path=ckpt_path, num_sanity_val_steps=0, enable_checkpointing=bool(saving),
    )  # fmt: skip
    return trace.steps, read(trainer, module)


def train_and_resume(
    folder: Path, *, num_ranks: int, metric: str, steps: Sequence[int], validations: Sequence[int]
) -> dict[str, Any]:
    """The steps and the end of a full run, under `full`, and of the runs resumed from these checkpoints, by name.

    Args:
        folder: of the checkpoints.
        num_ranks: the number of ranks.
        metric: what the scheduler monitors.
        steps: resume from the checkpoints written after these optimizer steps.
        validations: and from those written by the validations after these optimizer steps.
    """
    results = {"full": train(folder, num_ranks, metric)}
    torch.distributed.barrier()
    names = [f"step={n}.ckpt" for n in steps] + [f"validation/step={n}.ckpt" for n in validations]
    return results | {name: train(folder, num_ranks, metric, folder / name) for name in names}
