"""For tests of callbacks: a small network with backbone and head, a loader that resumes, one way to fit them."""

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
    """Four batches an epoch, ordered by the epoch alone; takes up within one by its state, at its end by its number."""

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
    """A backbone with BatchNorm, dropout, and a head; `configure` stands in for `configure_optimizers`."""

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
    """Fit, on the CPU unless told otherwise, with a checkpoint after each optimizer step where `save` says so."""
    saving = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if save else []
    arguments = {"accelerator": "cpu", "logger": False, "enable_checkpointing": bool(saving), **arguments}
    seed_everything(seed, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|LeafSpec|number of training batches).*"
        )
        warnings.filterwarnings(
            "ignore", message=".*(Checkpoint directory|dirpath has changed|Be aware that when using .ckpt_path).*"
        )
        trainer = Trainer(
            devices=1,
            max_epochs=epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, *saving],
            default_root_dir=folder,
            **arguments,
        )
        trainer.fit(module, Loader() if loader is None else loader, ckpt_path=ckpt_path)
    return trainer


def same(first: Any, second: Any) -> bool:
    """Whether two nests of containers hold bitwise the same."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


class Witness(Callback):
    """Notes what `look` sees after each optimizer step: by default each live group's name and lr."""

    def __init__(self, look: Callable[[Trainer, LightningModule], Any] | None = None) -> None:
        self.look = look or (lambda trainer, _: {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups})
        self.seen: list[Any] = []
        self.handle: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.handle = trainer.optimizers[0].register_step_post_hook(
            lambda *_: self.seen.append(self.look(trainer, pl_module))
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.handle.remove()
