"""Stop a run on every rank with an exception in some hook, and resume it from the checkpoint that is written then."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.fsdp import fully_shard

from lightning_optim import StagedUnfreeze
from tests.support.runs.common import fit_on_ranks, to_full
from tests.support.runs.plateau import EPOCHS, PLAN, LoggingNet
from tests.support.stopped_runs import SameBatches, SaveOnException, Stop, stop_at


class RankBatches(SameBatches):
    """Other ones on each rank."""

    def __init__(self, batches: int) -> None:
        super().__init__(batches)
        rank = int(os.environ.get("LOCAL_RANK", 0))
        self.batch = self.batch[0] + rank, (self.batch[1] + rank) % 3


class StoppedNet(LoggingNet):
    """Its metric is another on each rank, and reduced over them."""

    def __init__(self, metric: str) -> None:
        super().__init__(metric)
        self.dropout.p = 0.0

    def train_dataloader(self) -> Any:
        return RankBatches(3)

    def val_dataloader(self) -> Any:
        return RankBatches(2)


class ShardedStoppedNet(StoppedNet):
    def configure_model(self) -> None:
        for unit in (self.backbone, self.head, self):
            fully_shard(unit, mesh=self.device_mesh["data_parallel"])


def train(folder: Path, strategy: str, metric: str, *callbacks: Callback, ckpt_path: Path | None = None) -> Any:
    torch.manual_seed(0)
    module = (StoppedNet if strategy == "ddp" else ShardedStoppedNet)(metric)
    trainer = fit_on_ranks(
        module, folder, StagedUnfreeze(PLAN), *callbacks, num_ranks=2, strategy=strategy, epochs=EPOCHS,
        ckpt_path=ckpt_path, num_sanity_val_steps=0, enable_checkpointing=bool(callbacks),
    )  # fmt: skip
    groups = [(group["name"], group["lr"]) for group in trainer.optimizers[0].param_groups]
    return groups, [to_full(parameter) for parameter in module.parameters()]


def stop_and_resume(
    folder: Path, *, num_ranks: int, strategy: str, metric: str, cases: Sequence[tuple[str, int, int]], saver: str
) -> dict[str, Any]:
    """The end of a whole run, under `full`, and of each one that is stopped and resumed.

    Args:
        folder: of the checkpoints.
        num_ranks: the number of ranks.
        strategy: `ddp`, or `fsdp2`.
        metric: what the scheduler monitors.
        cases: the hook that raises, the epoch, and in the how many-th call there.
        saver: what writes the checkpoint: `exception` as Lightning's OnExceptionCheckpoint, or its `ModelCheckpoint`.
    """
    results = {"full": train(folder, strategy, metric)}
    for hook, epoch, call in cases:
        name = f"{hook} {epoch} {call}"
        path = folder / f"{name}.ckpt"
        saving: Any = SaveOnException(path)
        if saver == "ModelCheckpoint":
            saving = ModelCheckpoint(
                folder / name, "stopped", save_on_exception=True, every_n_epochs=100, save_on_train_epoch_end=True
            )
            path = folder / name / "stopped.ckpt"
        try:
            train(folder, strategy, metric, stop_at(hook, epoch, call), saving)
        except Stop:
            results[name] = train(folder, strategy, metric, ckpt_path=path)
        else:
            results[name] = "was not stopped"
    return results
