"""What OptimizerMonitor logs under DDP and FSDP2, or in one process at the same global batch."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from lightning.pytorch.loggers import Logger

from lightning_optim import OptimizerMonitor, StagedUnfreeze
from lightning_optim.telemetry import reductions
from tests.support.runs.common import RankNet, RootlessNet, ShardedNet, configured, fit_on_ranks

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 3}, "lr_scale": 0.1}}
COLLECTIVES = ("all_reduce", "all_gather", "broadcast", "all_gather_object", "all_gather_into_tensor")
MODULES = {"ddp": RankNet, "root": ShardedNet, "no root": RootlessNet}


class MemoryLogger(Logger):
    """Stores the optimizer's metrics."""

    name, version = "memory", 0

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {}

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        for tag, value in metrics.items():
            if tag.startswith("optim"):
                self.values.setdefault(tag, []).append((step or 0, value))


class CountingReductions(reductions.Reductions):
    """Counts the collectives of each logged step."""

    counts: list[dict[str, int]] = []

    def start_copy(self) -> None:
        with ExitStack() as stack:
            mocks = {
                name: stack.enter_context(patch.object(dist, name, wraps=getattr(dist, name))) for name in COLLECTIVES
            }
            super().start_copy()
        self.counts.append({name: mock.call_count for name, mock in mocks.items() if mock.call_count})


def train(folder: Path, *, num_ranks: int, module: str = "ddp", clip: float | None = None) -> Any:
    """The logged values by tag, the collectives of each logged step, and the last callback metrics."""
    torch.manual_seed(0)
    logger = MemoryLogger()
    monitor = OptimizerMonitor(1, update_norm=True, cosine=True, per_parameter=True, to_callback_metrics=True)
    CountingReductions.counts = []
    with patch("lightning_optim.telemetry.snapshot.Reductions", CountingReductions):
        trainer = fit_on_ranks(
            MODULES[module](configured()), folder, StagedUnfreeze(PLAN), monitor, num_ranks=num_ranks,
            strategy="ddp" if module == "ddp" else "fsdp2", logger=logger, accumulate_grad_batches=2,
            gradient_clip_val=clip,
        )  # fmt: skip
    metrics = {tag: float(value) for tag, value in trainer.callback_metrics.items() if tag.startswith("optim")}
    return logger.values, CountingReductions.counts, metrics
