"""Train with `schedule_free` and EvalWeights under DDP or FSDP2, or in one process at the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_optim import EvalWeights, OptimizerFactory, StagedUnfreeze, configure_optimizers
from tests.support.runs.common import NO_DECAY, RankLoader, RankNet, RootlessNet, ShardedNet, fit_on_ranks, to_full

FACTORY = OptimizerFactory(
    "adamw", lr=0.05, betas=[0.0, 0.99], eps=1e-2, schedule_free={"beta": 0.9, "warmup_steps": 3}, groups=NO_DECAY
)
PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 5}, "lr_scale": 0.5}}


class Validates:
    """Validates on this rank's training rows."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def val_dataloader(self: Any) -> Any:
        loader = RankLoader(self.trainer.global_rank, self.trainer.world_size)
        rows = torch.utils.data.TensorDataset(loader.inputs, loader.targets)
        return torch.utils.data.DataLoader(rows, batch_size=None)


class Replicated(Validates, RankNet):
    pass


class Sharded(Validates, ShardedNet):
    pass


class Rootless(Validates, RootlessNet):
    pass


MODULES: dict[str, Any] = {"replicated": Replicated, "root": Sharded, "no root": Rootless}


class Reads(Callback):
    """The loss of each validation, and the parameters after each step, in each validation and at the end."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def _add(self, hook: str, trainer: Trainer, module: LightningModule, *values: Any) -> None:
        self.seen.append((hook, trainer.global_step, *values, [to_full(param) for param in module.parameters()]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._add("train", trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._add("validation", trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seen.append(("loss", trainer.global_step, float(trainer.callback_metrics["val"])))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add("fit end", trainer, pl_module)


def train(
    folder: Path,
    *,
    num_ranks: int,
    module: str,
    strategy: str = "ddp",
    stages: bool = False,
    ckpt_path: str | None = None,
) -> list[Any]:
    """What `Reads` has seen in 8 steps, with a validation after every second one; saves `step=<n>.ckpt` after each."""
    torch.manual_seed(0 if ckpt_path is None else 1)
    reads = Reads()
    fit_on_ranks(
        MODULES[module](lambda own: configure_optimizers(own, FACTORY)), folder,
        *([StagedUnfreeze(PLAN)] if stages else []), EvalWeights(), reads,
        num_ranks=num_ranks, strategy=strategy, save=ckpt_path is None, ckpt_path=ckpt_path, epochs=2,
        val_check_interval=2, use_distributed_sampler=False, seed=0 if ckpt_path is None else 1,
    )  # fmt: skip
    return reads.seen
