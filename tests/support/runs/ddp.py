"""Train under DDP with stages, with a rule that freezes, or with gradients of which one rank's are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from lightning_optim import OptimizerFactory, StagedUnfreeze
from tests.support.runs.common import ADAMW, NO_DECAY, RankNet, configured, fit_on_ranks
from tests.support.training import StepTrace, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 2}, "lr_scale": 0.1}}
FREEZING = OptimizerFactory("adamw", lr=0.01, groups={**NO_DECAY, "stem": {"params": "backbone.0", "frozen": True}})
SKIPPING = OptimizerFactory("adamw", lr=0.01, skip_nonfinite=True, lookahead={"k": 2}, groups=NO_DECAY)
NONFINITE_STEP = 4
"""The optimizer step in which the last rank's loss is NaN."""


class NonfiniteNet(RankNet):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        is_last_rank = self.trainer.global_rank == self.trainer.world_size - 1
        is_nonfinite = is_last_rank and (self.trainer.global_step, batch_idx % 2) == (NONFINITE_STEP, 1)
        return loss * float("nan") if is_nonfinite else loss


def read_groups(trainer: Trainer, module: LightningModule) -> Any:
    groups = [group["name"] for group in trainer.optimizers[0].param_groups]
    return groups, [p.detach().clone() for p in module.parameters()]


def read_skipped(trainer: Trainer, module: LightningModule) -> Any:
    states = [trainer.optimizers[0].state[p] for p in module.parameters()]
    return [state.get("skipped", 0) for state in states], [p.detach().clone() for p in module.parameters()]


def train_in_stages(folder: Path, *, num_ranks: int, ckpt_path: str | None = None) -> list[Any]:
    """After each of 8 optimizer steps: the groups' names and the parameters; saves `step=<n>.ckpt` after each."""
    torch.manual_seed(0)
    trace = StepTrace(read_groups)
    fit_on_ranks(
        RankNet(configured(ADAMW)), folder, StagedUnfreeze(PLAN), trace, num_ranks=num_ranks,
        save=ckpt_path is None, ckpt_path=ckpt_path, accumulate_grad_batches=2,
    )  # fmt: skip
    return trace.steps


class ByHand(RankNet):
    """The same under manual optimization."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()
        scheduler.step()


def train_with_static_graph(folder: Path, *, num_ranks: int) -> list[Any]:
    """The stages' steps under manual optimization: under DDP, with a static graph."""
    torch.manual_seed(0)
    trace = StepTrace(read_groups)
    strategy: Any = "auto" if num_ranks == 1 else DDPStrategy(static_graph=True)
    module = ByHand(configured(ADAMW))
    fit(module, folder, StagedUnfreeze(PLAN), trace, devices=num_ranks, strategy=strategy, seed=0, epochs=2)
    return trace.steps


def train_with_frozen_rule(folder: Path, *, num_ranks: int) -> list[Any]:
    """The same without stages, where a rule freezes the first layer."""
    torch.manual_seed(0)
    trace = StepTrace(read_groups)
    fit_on_ranks(RankNet(configured(FREEZING)), folder, trace, num_ranks=num_ranks, accumulate_grad_batches=2)
    return trace.steps


def train_with_nonfinite(folder: Path, *, num_ranks: int) -> list[Any]:
    """After each optimizer step: the number of skipped steps by parameter, and the parameters."""
    torch.manual_seed(0)
    trace = StepTrace(read_skipped)
    fit_on_ranks(NonfiniteNet(configured(SKIPPING)), folder, trace, num_ranks=num_ranks, accumulate_grad_batches=2)
    return trace.steps
