"""ReduceLROnPlateau under StagedUnfreeze in two processes whose ranks draw and log values of their own.

`tests.support.runs.plateau FOLDER METRIC`: trains, then resumes from every checkpoint, one a step and one at each
validation; one file a rank notes what each run did in each of its steps.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.runs.ddp import Shard, Whole
from tests.support.training import Witness

EPOCHS = 4
PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
# metric -> what log() is told of it.
METRICS: dict[str, dict[str, Any]] = {
    "mean": {"sync_dist": True},
    "mean of rank zero": {},
    "largest": {"sync_dist": True, "reduce_fx": "max"},
    "sum": {"sync_dist": True, "reduce_fx": "sum"},
    "val": {"sync_dist": True},
}
MODES = {"largest": "min"}  # so that each lr falls at some time; else max


class Logged(Whole):
    def __init__(self, metric: str) -> None:
        super().__init__(OptimizerFactory("adamw", lr=0.05))
        self.metric = metric
        self.dropout.p = 0.3

    def configure_optimizers(self) -> Any:
        waiting = SchedulerFactory(
            "reduce_on_plateau",
            interval="epoch",
            monitor=self.metric,
            mode=MODES.get(self.metric, "max"),
            patience=0,
            factor=0.75,
        )
        return configure_optimizers(self, OptimizerFactory("adamw", lr=0.05), waiting)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if self.metric != "val":
            how = {"on_step": False, "on_epoch": True, **METRICS[self.metric]}
            self.log(self.metric, loss, batch_size=3 + batch_idx, **how)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.metric == "val":
            self.log("val", nn.functional.cross_entropy(self(batch[0]), batch[1]), **METRICS["val"])

    def val_dataloader(self) -> Any:
        return Shard(self.trainer.global_rank, self.trainer.world_size)


def look(trainer: Trainer, module: Any) -> Any:
    groups = [(group["name"], group["lr"]) for group in trainer.optimizers[0].param_groups]
    return groups, [p.detach().clone() for p in module.parameters()]


def run(folder: Path, metric: str, ckpt_path: Path | None = None) -> Any:
    seed_everything(int(os.environ.get("LOCAL_RANK", 0)) + (10 if ckpt_path else 0), verbose=False)
    witness = Witness(look)
    steps = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    validations = ModelCheckpoint(folder / "val", "{step}", every_n_epochs=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=EPOCHS, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=ckpt_path is None,
        callbacks=[StagedUnfreeze(PLAN), RNGState(), witness, *([] if ckpt_path else [steps, validations])],
    )  # fmt: skip
    module = Logged(metric)
    trainer.fit(module, ckpt_path=ckpt_path)
    return witness.seen, look(trainer, module)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    target, metric = Path(sys.argv[1]), sys.argv[2]
    runs: dict[Path | None, Any] = {None: run(target, metric)}
    torch.distributed.barrier()
    for path in sorted(target.rglob("*.ckpt")):
        runs[path.relative_to(target)] = run(target, metric, path)
    rank = torch.distributed.get_rank()
    torch.save({str(path): seen for path, seen in runs.items()}, target / f"rank{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads can abort an exit
