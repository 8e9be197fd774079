"""Trains with StagedUnfreeze and notes every parameter after every optimizer step, one file a rank.

`python -m tests.callbacks.ddp_run FOLDER DEVICES [CKPT_PATH | frozen]`: the global batch is the same with 1 and 2
devices; `frozen` trains without stages, but with a rule that freezes a layer.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.training import Loader, Net, Witness

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 2}, "lr_scale": 0.1}}
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
FACTORY = OptimizerFactory("adamw", lr=0.01, groups=NO_DECAY)
FREEZING = OptimizerFactory("adamw", lr=0.01, groups={**NO_DECAY, "stem": {"params": "backbone.0", "frozen": True}})
SCHEDULE = SchedulerFactory("cosine_annealing", total_steps=8)


class Shard(Loader):
    """A rank's rows of every batch."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.inputs, self.targets = self.inputs[:, rank::world_size], self.targets[:, rank::world_size]


class Whole(Net):
    """Without BatchNorm, whose statistics are a rank's own."""

    def __init__(self, factory: OptimizerFactory) -> None:
        super().__init__(lambda module: configure_optimizers(module, factory, SCHEDULE))
        self.backbone[1] = nn.LayerNorm(8)

    def train_dataloader(self) -> Loader:
        return Shard(self.trainer.global_rank, self.trainer.world_size)


def main(folder: Path, devices: int, ckpt_path: str | None = None) -> None:
    frozen = ckpt_path == "frozen"
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)

    def look(trainer: Trainer, module: Any) -> Any:
        groups = [group["name"] for group in trainer.optimizers[0].param_groups]
        return groups, [p.detach().clone() for p in module.parameters()]

    witness = Witness(look)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=4,
        accumulate_grad_batches=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*([] if frozen else [StagedUnfreeze(PLAN)]), witness, saving],
    )  # fmt: skip
    trainer.fit(Whole(FREEZING if frozen else FACTORY), ckpt_path=None if frozen else ckpt_path)
    torch.save(witness.seen, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
