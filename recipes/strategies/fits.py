"""`fit`: a short fit under a strategy, and what it leaves after each optimizer step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._common_utils import clean_tensor_name

from .model import EPOCHS, Net
from .parts import Part
from .rows import Row

_TAG = "optim_param/norm/"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an optimizer step leaves on a rank."""

    values: Mapping[str, Tensor]
    """Of each parameter and buffer, gathered from all ranks."""
    lrs: Mapping[str, float | None]
    """By parameter: as used in the step; None while no group holds it."""
    norms: Mapping[str, float]
    """By `<signal>/<parameter>`."""
    is_fused: bool = False
    """Whether torch's fused kernel took the step."""


def read_trace(path: Path) -> list[Step]:
    """The steps in a file."""
    return [Step(**step) for step in torch.load(path)]


class Trace(Callback):
    """Writes what each step leaves to `folder/rank<n>.pt` at the end of the fit.

    Args:
        folder: exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self._num_before = 0
        self._lrs: dict[str, float | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_before = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        lrs = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        self._lrs = {clean_tensor_name(name): lrs.get(id(p)) for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step - self._num_before > len(self.steps):
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            self.steps.append(
                Step(
                    values=read_values(pl_module, trainer.strategy.model),
                    lrs=self._lrs,
                    norms=_read_norms(trainer.callback_metrics),
                    is_fused=any(group.get("fused") for group in groups),
                )
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save([vars(step) for step in self.steps], self.folder / f"rank{trainer.global_rank}.pt")


class SaveAt(ModelCheckpoint):
    """Writes `step=<n>.ckpt` after these optimizer steps.

    Args:
        folder: for the checkpoints.
        steps: from 1.
    """

    def __init__(self, folder: Path, steps: Collection[int]) -> None:
        super().__init__(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step in self.steps:
            super().on_train_batch_end(trainer, *args, **kwargs)


def fit(row: Row, part: Part, folder: Path, *, save_at: Collection[int] = (), ckpt_path: Path | None = None) -> None:
    """Fit, and write the trace to `folder`.

    Args:
        row: the strategy.
        part: what is tried under it.
        folder: exists.
        save_at: write a checkpoint `step=<n>.ckpt` after these steps.
        ckpt_path: to resume from.
    """
    saving = [SaveAt(folder, save_at)] if save_at else []
    trainer = Trainer(
        accelerator="cpu", devices=row.ranks, strategy=row.build(), max_epochs=EPOCHS * row.accumulate, logger=False,
        enable_checkpointing=bool(saving), enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, accumulate_grad_batches=row.accumulate,
        callbacks=[*part.build_callbacks(), Trace(folder), *saving],
    )  # fmt: skip
    trainer.fit(Net(part.configure, row.distribute, row.variant), ckpt_path=ckpt_path)


def read_values(module: nn.Module, wrapped: Any) -> dict[str, Tensor]:
    """A copy of each parameter, gathered from all ranks.

    Args:
        module: the network.
        wrapped: as the strategy has wrapped it.
    """
    is_flat = isinstance(wrapped, FullyShardedDataParallel)
    with FullyShardedDataParallel.summon_full_params(wrapped, writeback=False) if is_flat else nullcontext():
        return {clean_tensor_name(name): gather(parameter) for name, parameter in module.named_parameters()} | {
            name: gather(buffer) for name, buffer in module.named_buffers()
        }


def gather(tensor: Any) -> Tensor:
    """A copy of a tensor, gathered if it is sharded."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


def _read_norms(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What the monitor has measured of each parameter, by `<signal>/<parameter>`; empty without it."""
    return {tag.removeprefix(_TAG): float(value) for tag, value in metrics.items() if tag.startswith(_TAG)}
