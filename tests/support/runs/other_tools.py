"""The plain job in two processes: what each of them has after every optimizer step, one file a rank.

`python -m tests.support.runs.other_tools STRATEGY TOOL FOLDER [CKPT_PATH]`: the strategy is `fsdp2` or a name that
Lightning knows, the tool a function of `tools`. `FOLDER` also gets a checkpoint after each epoch.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard

from tests.support import other_tools as tools
from tests.support.other_scenarios import EPOCHS, Network, look_at_lrs, sgd
from tests.support.training import Loader, Witness


class Shard(Loader):
    """A rank's rows of every batch."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.inputs, self.targets = self.inputs[:, rank::world_size], self.targets[:, rank::world_size]


class Distributed(Network):
    def __init__(self) -> None:
        super().__init__(sgd)

    def train_dataloader(self) -> Loader:
        return Shard(self.trainer.global_rank, self.trainer.world_size)


class Sharded(Distributed):
    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for unit in (self.backbone, self.head, self):
            fully_shard(unit, mesh=mesh)


def look(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    return {
        "weights": {name: whole(p) for name, p in module.named_parameters()},
        "trained": [name for name, p in module.named_parameters() if p.requires_grad],
        "lrs": look_at_lrs(trainer, module),
    }


def whole(tensor: Tensor) -> Tensor:
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


def main(strategy: str, name: str, folder: Path, ckpt_path: str | None = None) -> None:
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)
    tool, witness = getattr(tools, name)(), Witness(look)
    saving = tool.checkpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    sharding = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=sharding if strategy == "fsdp2" else strategy, max_epochs=EPOCHS,
        logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[tool.callback(), witness, saving],
    )  # fmt: skip
    trainer.fit(Sharded() if strategy == "fsdp2" else Distributed(), ckpt_path=ckpt_path)
    torch.save(witness.seen, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
