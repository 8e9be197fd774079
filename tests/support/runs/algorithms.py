"""Trains Muon + AdamW under Lightning in one process or two, and notes every parameter after every optimizer step.

`python -m tests.support.runs.algorithms FOLDER HOW [CKPT_PATH] [RULES]`: one file a rank. HOW is `alone`, `ddp`,
`fsdp`, `full` (fsdp whose checkpoints are one file) or `by_hand` (fsdp with two optimizers of torch's, stepped by the
module). The global batch is the same in all of them; RULES is one of `RULES`.
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
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.runs.ddp import Shard
from tests.support.training import Net, Witness

HIDDEN = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
RULES: dict[str, dict[str, Any]] = {
    "as saved": {"hidden": HIDDEN, "norms": {"params": "backbone.1", "weight_decay": 0.0}},
    "renamed": {"matrices": HIDDEN, "a_norm": {"params": "backbone.1", "weight_decay": 0.0}},
    "split": {
        "hidden": HIDDEN,
        "norms": {"params": "backbone.1", "weight_decay": 0.0},
        "biases": {"kinds": ["bias"], "lr_scale": 1.0},
    },
    "added": {
        "hidden": HIDDEN,
        "norms": {"params": "backbone.1", "weight_decay": 0.0},
        "head": {"params": "head", "lr_scale": 2.0},
    },
    "exchanged": {"hidden": HIDDEN, "head": {"params": "head", "lr_scale": 2.0}},
}
SCHEDULE = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=8)


class Whole(Net):
    """Without BatchNorm, whose statistics are a rank's own."""

    def __init__(self, rules: str) -> None:
        factory = OptimizerFactory("adamw", lr=0.01, groups=RULES[rules])
        super().__init__(lambda module: configure_optimizers(module, factory, SCHEDULE))
        self.backbone[1] = nn.LayerNorm(8)

    def train_dataloader(self) -> Shard:
        return Shard(self.trainer.global_rank, self.trainer.world_size)


class Sharded(Whole):
    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for unit in (self.backbone[0], self.backbone[3], self.head, self):
            fully_shard(unit, mesh=mesh)


class ByHand(Sharded):
    """The same with AdamW and Muon side by side."""

    automatic_optimization = False

    def configure_optimizers(self) -> Any:
        named = list(self.named_parameters())
        hidden = [p for name, p in named if name.startswith("backbone") and p.ndim == 2]
        norms = list(self.backbone[1].parameters())
        rest = [p for _, p in named if not any(p is other for other in (*hidden, *norms))]
        two = [
            torch.optim.AdamW([{"params": rest}, {"params": norms, "weight_decay": 0.0}], lr=0.01, fused=True),
            torch.optim.Muon(hidden, lr=0.02),
        ]
        return two, [SCHEDULE(optimizer) for optimizer in two]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]) / 2)
        if batch_idx % 2:
            for optimizer in self.optimizers()[::-1]:  # the witness looks after a step of the first one
                optimizer.step()
                optimizer.zero_grad()
            for scheduler in self.lr_schedulers():
                scheduler.step()


def whole(tensor: Any) -> Any:
    """A copy of a tensor, put together where it is sharded."""
    if not isinstance(tensor, Tensor):
        return tensor
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def look(trainer: Trainer, module: Any) -> dict[str, Any]:
    optimizer = trainer.optimizers[0]
    lrs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {
        "groups": [group.get("name") for group in optimizer.param_groups],
        "lrs": {name: lrs.get(id(p)) for name, p in module.named_parameters()},
        "params": {name: whole(p) for name, p in module.named_parameters()},
        "states": {
            name: {key: whole(value) for key, value in optimizer.state[p].items()}
            for name, p in module.named_parameters()
        },
    }


class Noted(Witness):
    """Also what is there before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self.seen.append(look(trainer, pl_module))


def main(folder: Path, how: str, ckpt_path: str = "", rules: str = "as saved") -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    sharded = how not in ("alone", "ddp")
    strategy: Any = "auto" if how == "alone" else how
    if sharded:
        strategy = ModelParallelStrategy(2, 1, save_distributed_checkpoint=how != "full")
    witness, by_hand = Noted(look), how == "by_hand"
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu", devices=1 if how == "alone" else 2, strategy=strategy, max_epochs=4,
        accumulate_grad_batches=1 if by_hand else 2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=not by_hand,
        callbacks=[witness, *([] if by_hand else [saving])],
    )  # fmt: skip
    classes = {"alone": Whole, "ddp": Whole, "by_hand": ByHand}
    trainer.fit(classes.get(how, Sharded)(rules), ckpt_path=ckpt_path or None)
    torch.save(witness.seen, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
