"""The plain job in two processes, which writes what each of them has after every optimizer step, one file per rank.

`python -m tests.support.runs.other_tools STRATEGY TOOL FOLDER [CHECKPOINT]`: the strategy is `fsdp2` or a name that
Lightning knows, the tool a function of `other_tools`. `FOLDER` also gets a checkpoint after each epoch. With the name
of one of them, for example `epoch=1`, a second run resumes from it and writes to `FOLDER/resumed`.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard

from tests.support import other_tools
from tests.support.other_scenarios import EPOCHS, LayerNormNet, make_sgd, record_lrs
from tests.support.runs.forked_ranks import run_on_forked_ranks
from tests.support.training import Loader, StepTrace


class ShardedLoader(Loader):
    """This rank's rows of every batch."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.inputs, self.targets = self.inputs[:, rank::world_size], self.targets[:, rank::world_size]


class DistributedNet(LayerNormNet):
    def __init__(self) -> None:
        super().__init__(make_sgd)

    def train_dataloader(self) -> Loader:
        return ShardedLoader(self.trainer.global_rank, self.trainer.world_size)


class ShardedNet(DistributedNet):
    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for unit in (self.backbone, self.head, self):
            fully_shard(unit, mesh=mesh)


def record(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    return {
        "weights": {name: gather(p) for name, p in module.named_parameters()},
        "trained": [name for name, p in module.named_parameters() if p.requires_grad],
        "lrs": record_lrs(trainer, module),
    }


def gather(tensor: Tensor) -> Tensor:
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


def run(strategy: str, name: str, folder: Path, ckpt_path: Path | None = None) -> None:
    seed_everything(0, verbose=False)
    tool, trace = getattr(other_tools, name)(), StepTrace(record)
    checkpoint = tool.checkpoint_class(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fsdp2 = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=fsdp2 if strategy == "fsdp2" else strategy, max_epochs=EPOCHS,
        logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[tool.make_callback(), trace, checkpoint],
    )  # fmt: skip
    trainer.fit(ShardedNet() if strategy == "fsdp2" else DistributedNet(), ckpt_path=ckpt_path)
    torch.save(trace.steps, folder / f"rank{trainer.global_rank}.pt")


def main(strategy: str, name: str, folder: Path, checkpoint: str | None = None) -> None:
    warnings.simplefilter("ignore")
    run(strategy, name, folder)
    if checkpoint is not None:
        (folder / "resumed").mkdir(exist_ok=True)
        run(strategy, name, folder / "resumed", folder / f"{checkpoint}.ckpt")


if __name__ == "__main__":
    run_on_forked_ranks(partial(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))
