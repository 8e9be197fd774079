"""For tests of callbacks: a small network with backbone and head, a loader that resumes, and one way to fit them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)

BATCHES = 4


class Loader:
    """Four batches per epoch, in an order that depends only on the epoch; resumes mid-epoch from its state."""

    def __init__(self, batches: int = BATCHES) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(batches, 8, 4, generator=generator)
        self.targets = torch.randint(0, 3, (batches, 8), generator=generator)
        self.epoch = self.batch = 0
        self.batch_sampler = SimpleNamespace(sampler=self)  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        return len(self.inputs)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch))
        for index in order[self.batch :]:
            self.batch += 1
            yield self.inputs[index], self.targets[index]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]


class Net(LightningModule):
    """A backbone with BatchNorm, dropout, and a head; `configure(self)` is its `configure_optimizers`."""

    def __init__(self, configure: Callable[[Net], Any], dropout: float = 0.0) -> None:
        super().__init__()
        self.configure = configure
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(inputs)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.configure(self)


def fit(
    module: LightningModule,
    folder: Path,
    *callbacks: Callback,
    epochs: int = 4,
    ckpt_path: Path | None = None,
    loader: Any = None,
    save: bool = False,
    seed: int = 1,
    **arguments: Any,
) -> Trainer:
    """Fit, by default on one CPU process.

    Args:
        module: trained on `loader`, else on its own `train_dataloader`, else on a `Loader`.
        folder: gets the checkpoints.
        callbacks: in this order.
        epochs: the trainer's `max_epochs`.
        ckpt_path: to resume from.
        loader: the training data.
        save: write a checkpoint `step=<n>.ckpt` after every optimizer step.
        seed: of all generators.
        arguments: of the Trainer.
    """
    saving = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if save else []
    arguments = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": bool(saving), **arguments}
    if loader is None and type(module).train_dataloader is LightningModule.train_dataloader:
        loader = Loader()
    seed_everything(seed, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|LeafSpec|number of training batches).*"
        )
        warnings.filterwarnings(
            "ignore", message=".*(Checkpoint directory|dirpath has changed|Be aware that when using .ckpt_path).*"
        )
        trainer = Trainer(
            max_epochs=epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, *saving],
            default_root_dir=folder,
            **arguments,
        )
        trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


def live_lrs(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """The lr of each param group of the first optimizer, by the group's name."""
    return {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}


class StepTrace(Callback):
    """Appends what `read` returns after each optimizer step to `steps`: by default the live groups' lrs."""

    def __init__(self, read: Callable[[Trainer, LightningModule], Any] = live_lrs) -> None:
        self.read = read
        self.steps: list[Any] = []
        self._handle: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._handle = trainer.optimizers[0].register_step_post_hook(
            lambda *_: self.steps.append(self.read(trainer, pl_module))
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._handle.remove()
