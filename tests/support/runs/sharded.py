"""Trains with StagedUnfreeze under FSDP2 and notes every parameter after every optimizer step, one file a rank.

`tests.support.runs.sharded FOLDER HOW [STEP ...]`: `alone` is one process at the same global batch, else two:
`root` with a common root around the units, `apart` without, `mixed` in another precision than the parameters', each
`-distributed` or `-full` by its checkpoints. Then the same from the checkpoint of each STEP.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from lightning_optim import StagedUnfreeze
from tests.support.runs.ddp import FACTORY, Whole
from tests.support.training import Witness

PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"step": 3}, "lr_scale": 0.1, "warmup_steps": 3},
}


class Sharded(Whole):
    root = True
    policy = MixedPrecisionPolicy()

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for unit in (self.backbone, self.head, *([self] if self.root else [])):
            fully_shard(unit, mesh=mesh, mp_policy=self.policy)


class Apart(Sharded):
    root = False


class Mixed(Sharded):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def look(trainer: Trainer, module: Any) -> Any:
    optimizer = trainer.optimizers[0]
    groups = [(group["name"], group["lr"], group["param_names"]) for group in optimizer.param_groups]
    states = [
        {key: whole(value) for key, value in optimizer.state[p].items()}
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    return groups, [whole(p) for group in optimizer.param_groups for p in group["params"]], states


def run(folder: Path, how: str, ckpt_path: Path | None = None) -> None:
    seed_everything(0 if ckpt_path is None else 1, verbose=False)
    strategy: Any = "auto"
    if how != "alone":
        strategy = ModelParallelStrategy(2, 1, save_distributed_checkpoint=how.endswith("distributed"))
    module = {"alone": Whole, "root": Sharded, "apart": Apart, "mixed": Mixed}[how.partition("-")[0]](FACTORY)
    witness = Witness(look)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu", devices=1 if how == "alone" else 2, strategy=strategy, max_epochs=4,
        accumulate_grad_batches=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=ckpt_path is None,
        callbacks=[StagedUnfreeze(PLAN), witness, *([saving] if ckpt_path is None else [])],
    )  # fmt: skip
    trainer.fit(module, ckpt_path=ckpt_path)
    step = "" if ckpt_path is None else f"-{ckpt_path.stem}"
    torch.save(witness.seen, folder / f"rank{trainer.global_rank}{step}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    run(place, sys.argv[2])
    for number in sys.argv[3:]:
        run(place, sys.argv[2], place / f"step={number}.ckpt")
