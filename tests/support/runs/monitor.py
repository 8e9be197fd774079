"""What OptimizerMonitor logs in two processes and in one at the same global batch.

`tests.support.runs.monitor FOLDER HOW`: `alone`, `alone_unclipped`, `ddp`, `root` or `apart` (FSDP2 with
and without a common root). Each rank notes the values by tag and step, and the collectives that a log has taken.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_optim import OptimizerFactory, OptimizerMonitor, StagedUnfreeze
from lightning_optim.telemetry import reductions
from tests.support.runs.ddp import Whole
from tests.support.runs.sharded import Apart, Sharded

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 3}, "lr_scale": 0.1}}
FACTORY = OptimizerFactory("adamw", lr=0.01, groups={"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}})


COLLECTIVES = ("all_reduce", "all_gather", "broadcast", "all_gather_object", "all_gather_into_tensor")


class Noted(Logger):
    """Keeps what it is given."""

    name, version = "noted", 0

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {}

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        for tag, value in metrics.items():
            if tag.startswith("optim"):
                self.values.setdefault(tag, []).append((step or 0, value))


class Counted(reductions.Reductions):
    """Notes its collectives."""

    counts: list[dict[str, int]] = []

    def send(self) -> None:
        with ExitStack() as stack:
            mocks = {
                name: stack.enter_context(patch.object(dist, name, wraps=getattr(dist, name))) for name in COLLECTIVES
            }
            super().send()
        self.counts.append({name: mock.call_count for name, mock in mocks.items() if mock.call_count})


def main(folder: Path, how: str) -> None:
    from lightning_optim.telemetry import snapshot

    snapshot.Reductions = Counted  # type: ignore[misc]
    seed_everything(0, verbose=False)
    alone = how.startswith("alone")
    strategy: Any = {"alone": "auto", "alone_unclipped": "auto", "ddp": "ddp"}.get(how) or ModelParallelStrategy(2, 1)
    module = {"root": Sharded, "apart": Apart}.get(how, Whole)(FACTORY)
    logger = Noted()
    monitor = OptimizerMonitor(1, update_norm=True, cosine=True, per_parameter=True, to_callback_metrics=True)
    trainer = Trainer(
        accelerator="cpu", devices=1 if alone else 2, strategy=strategy, max_epochs=4, logger=logger,
        accumulate_grad_batches=2, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        gradient_clip_val=0.05 if how in ("alone", "ddp") else None, callbacks=[StagedUnfreeze(PLAN), monitor],
    )  # fmt: skip
    trainer.fit(module)
    metrics = {tag: float(value) for tag, value in trainer.callback_metrics.items() if tag.startswith("optim")}
    rank = trainer.global_rank
    torch.save((logger.values, Counted.counts, metrics), folder / f"{how}{rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
    if dist.is_initialized():
        dist.barrier()
    os._exit(0)  # gloo's threads can abort an exit
