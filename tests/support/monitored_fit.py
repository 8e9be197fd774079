"""An OptimizerMonitor that runs each of its hooks, Lightning's and torch's, through a method of a test."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_optim import OptimizerMonitor


class HookedMonitor(OptimizerMonitor):
    """Calls `run_hook(hook, *args)` for each hook of a training step, instead of the hook."""

    def run_hook(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
                for key, hook in list(hooks.items()):
                    hooks[key] = lambda *args, hook=hook: self.run_hook(hook, *args)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.run_hook(super().on_train_batch_start, *args, **kwargs)

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.run_hook(super().on_before_optimizer_step, *args)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.run_hook(super().on_train_batch_end, *args, **kwargs)


class ManyParameters(LightningModule):
    """As many small parameters, in as many groups, as asked for."""

    def __init__(self, num_parameters: int, num_groups: int) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(num_parameters)])
        self.num_groups = num_groups

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack(list(self.values)).square().sum()

    def configure_optimizers(self) -> Any:
        params = list(self.values)
        return torch.optim.AdamW([{"params": params[n :: self.num_groups]} for n in range(self.num_groups)])
