"""Train Muon + AdamW in one optimizer under DDP and FSDP2, in one process, or as two optimizers by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory, optim
from tests.support.runs.common import RankNet, ShardedNet, configured, fit_on_ranks, to_full
from tests.support.training import StepTrace

HIDDEN = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
NORMS = {"params": "backbone.1", "weight_decay": 0.0}
RULES: dict[str, dict[str, Any]] = {
    "as saved": {"hidden": HIDDEN, "norms": NORMS},
    "renamed": {"matrices": HIDDEN, "a_norm": NORMS},
    "split": {"hidden": HIDDEN, "norms": NORMS, "biases": {"kinds": ["bias"], "lr_scale": 1.0}},
    "added": {"hidden": HIDDEN, "norms": NORMS, "head": {"params": "head", "lr_scale": 2.0}},
    "exchanged": {"hidden": HIDDEN, "head": {"params": "head", "lr_scale": 2.0}},
}
SCHEDULE = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=8)


class UnitsNet(ShardedNet):
    def units(self) -> list[nn.Module]:
        return [self.backbone[0], self.backbone[3], self.head]


class ByHand(UnitsNet):
    """Trains the same with torch's AdamW and our Muon side by side: torch's has no bits for shards to agree with."""

    automatic_optimization = False

    def configure_optimizers(self) -> Any:
        named = list(self.named_parameters())
        hidden = [p for name, p in named if name.startswith("backbone") and p.ndim == 2]
        norms = list(self.backbone[1].parameters())
        rest = [p for _, p in named if not any(p is other for other in (*hidden, *norms))]
        optimizers = [
            torch.optim.AdamW([{"params": rest}, {"params": norms, "weight_decay": 0.0}], lr=0.01, fused=True),
            optim.Muon(hidden, lr=0.02),
        ]
        return optimizers, [SCHEDULE(optimizer) for optimizer in optimizers]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]) / 2)
        if batch_idx % 2:
            for optimizer in self.optimizers()[::-1]:  # the trace is taken after a step of the first one
                optimizer.step()
                optimizer.zero_grad()
            for scheduler in self.lr_schedulers():
                scheduler.step()


MODULES = {"ddp": RankNet, "sharded": UnitsNet, "by hand": ByHand}


def read(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    optimizer = trainer.optimizers[0]
    lrs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(module.named_parameters())
    return {
        "lrs": {name: lrs.get(id(p)) for name, p in named.items()},
        "params": {name: to_full(p) for name, p in named.items()},
        "states": {
            name: {key: to_full(value) for key, value in optimizer.state[p].items()} for name, p in named.items()
        },
    }


class TraceFromStart(StepTrace):
    """Starts with an entry from before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.steps.append(self.read(trainer, pl_module))


def train(
    folder: Path,
    *,
    num_ranks: int,
    module: str = "ddp",
    strategy: str = "ddp",
    rules: str = "as saved",
    ckpt_path: str | None = None,
) -> list[Any]:
    """Before the first and after each of 8 optimizer steps: lrs, parameters and states by name."""
    torch.manual_seed(0)
    trace, by_hand = TraceFromStart(read), module == "by hand"
    factory = OptimizerFactory("adamw", lr=0.01, groups=RULES[rules])
    fit_on_ranks(
        MODULES[module](configured(factory, SCHEDULE)), folder, trace, num_ranks=num_ranks, strategy=strategy,
        save=ckpt_path is None and not by_hand, ckpt_path=ckpt_path, accumulate_grad_batches=1 if by_hand else 2,
    )  # fmt: skip
    return trace.steps
