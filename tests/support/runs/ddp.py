"""Trains with StagedUnfreeze and notes every parameter after every optimizer step, one file a rank.

`python -m tests.support.runs.ddp FOLDER DEVICES [CKPT_PATH | frozen | poisoned]`: the global batch is the same with 1
and 2 devices; `frozen` trains without stages, but with a rule that freezes a layer; `poisoned` skips steps that are not
finite, and the last rank has a batch of which one is.
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
from tests.support.training import Loader, Net, Witness

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


SKIPPING = OptimizerFactory("adamw", lr=0.01, skip_nonfinite=True, lookahead={"k": 2}, groups=NO_DECAY)
POISONED_AT = 4
"""The optimizer step."""


class Whole(Net):
    """Without BatchNorm, whose statistics are a rank's own."""

    def __init__(self, factory: OptimizerFactory) -> None:
        super().__init__(lambda module: configure_optimizers(module, factory, SCHEDULE))
        self.backbone[1] = nn.LayerNorm(8)
        self.poisoned = factory is SKIPPING

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        last = self.trainer.global_rank == self.trainer.world_size - 1
        at = (self.trainer.global_step, batch_idx % 2) == (POISONED_AT, 1)
        return loss * float("nan") if self.poisoned and last and at else loss

    def train_dataloader(self) -> Loader:
        return Shard(self.trainer.global_rank, self.trainer.world_size)


def main(folder: Path, devices: int, ckpt_path: str | None = None) -> None:
    factory = {"frozen": FREEZING, "poisoned": SKIPPING}.get(str(ckpt_path), FACTORY)
    staged = factory is FACTORY
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)

    def look(trainer: Trainer, module: Any) -> Any:
        groups = [group["name"] for group in trainer.optimizers[0].param_groups]
        params = [p.detach().clone() for p in module.parameters()]
        if factory is not SKIPPING:
            return groups, params
        states = [trainer.optimizers[0].state[p] for p in module.parameters()]
        return [state.get("skipped", 0) for state in states], params

    witness = Witness(look)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=4,
        accumulate_grad_batches=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*([StagedUnfreeze(PLAN)] if staged else []), witness, saving],
    )  # fmt: skip
    trainer.fit(Whole(factory), ckpt_path=ckpt_path if staged else None)
    torch.save(witness.seen, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
