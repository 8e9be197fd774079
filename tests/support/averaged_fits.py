"""Fits with `schedule_free` and EvalWeights, and what a plain loop with the authors' optimizer would have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_optim import EvalWeights, OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.training import BATCHES, Loader, Net, fit

EPOCHS = 3
NUM_STEPS = EPOCHS * BATCHES
VALIDATES_EVERY = 2
PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 5}, "lr_scale": 0.5}}
GROUPS = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}, "head": {"params": "head", "lr": 0.02}}
ADAMW = OptimizerFactory(
    "adamw",
    lr=0.05,
    betas=[0.0, 0.99],
    eps=1e-4,  # the gradient of a bias before BatchNorm is rounding
    weight_decay=0.1,
    schedule_free={"beta": 0.9, "warmup_steps": 5},
    groups=GROUPS,
)


class AveragedNet(Net):
    """Validates and tests on the training data."""

    def __init__(self, factory: OptimizerFactory = ADAMW, scheduler: SchedulerFactory | None = None, **kwargs: Any):
        super().__init__(lambda module: configure_optimizers(module, factory, scheduler), **kwargs)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def val_dataloader(self) -> DataLoader[Any]:
        loader = Loader()
        return DataLoader(TensorDataset(loader.inputs, loader.targets), batch_size=None)

    test_dataloader = val_dataloader


def copies(module: nn.Module) -> list[Tensor]:
    return [param.detach().clone() for param in module.parameters()]


class Weights(Callback):
    """Copies of the weights by hook, in the order of the hooks; put it anywhere among the callbacks."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, list[Tensor]]] = []

    def at(self, hook: str) -> list[tuple[int, list[Tensor]]]:
        """`(number of steps, weights)` of each call of a hook."""
        return [(step, weights) for name, step, weights in self.seen if name == hook]

    def _add(self, hook: str, trainer: Trainer, module: LightningModule) -> None:
        self.seen.append((hook, trainer.global_step, copies(module)))

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add("sanity", trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add("start", trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._add("train", trainer, pl_module)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._add("validation", trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add("fit end", trainer, pl_module)


def fit_averaged(
    folder: Path, *callbacks: Callback, module: LightningModule | None = None, seed: int = 0, **arguments: Any
) -> tuple[Trainer, Any, Weights]:
    """Fit for 12 steps with EvalWeights and a validation after every second one."""
    torch.manual_seed(seed)
    module = AveragedNet() if module is None else module
    weights = Weights()
    if not any(isinstance(callback, EvalWeights) for callback in callbacks):
        callbacks = (EvalWeights(), *callbacks)
    arguments = {"epochs": EPOCHS, "val_check_interval": VALIDATES_EVERY, **arguments}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(without a model|no last checkpoint).*")
        trainer = fit(module, folder, *callbacks, weights, **arguments)
    return trainer, module, weights
