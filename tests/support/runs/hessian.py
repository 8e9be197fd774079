"""Train with SophiaHessian under DDP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional

from lightning_optim import OptimizerFactory, SophiaHessian
from lightning_optim.optim.gauss_newton import SampledGradients
from tests.support.runs.common import RankNet, configured, fit_on_ranks
from tests.support.training import StepTrace

SOPHIA = OptimizerFactory("sophia_g", lr=0.01)


class ReferenceNet(RankNet):
    """Computes the first step's gradients at labels sampled for this rank's half of the batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == 0:
            params = dict(self.named_parameters())

            def store(num_samples: float, grads: Any) -> None:
                assert num_samples == 4
                self.grads = {name: grads[p].clone() for name, p in params.items()}

            with SampledGradients(list(params.values()), self.trainer.global_rank, 1.0, store):
                functional.cross_entropy(self(batch[0]), batch[1])


def read_hessians(trainer: Trainer, module: LightningModule) -> dict[str, torch.Tensor]:
    state = trainer.optimizers[0].state
    return {name: state[p]["hessian"].clone() for name, p in module.named_parameters()}


def train(folder: Path, *, num_ranks: int) -> dict[str, Any]:
    """The Hessians after each step, the weights at the end, and this rank's reference gradients."""
    torch.manual_seed(0)
    trace, module = StepTrace(read_hessians), ReferenceNet(configured(SOPHIA))
    fit_on_ranks(module, folder, SophiaHessian(2), trace, num_ranks=num_ranks, epochs=2)
    weights = [p.detach().clone() for p in module.parameters()]
    return {"hessians": trace.steps, "weights": weights, "grads": module.grads}
