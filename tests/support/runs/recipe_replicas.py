"""A callback that notes this rank's parameters after every step, for comparing ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from tests.support.training import Witness


class Replicas(Witness):
    """Written to `folder/rank<n>.pt` at the end; of two fits, the last stays."""

    def __init__(self, folder: str) -> None:
        super().__init__(lambda _, module: [p.detach().clone() for p in module.parameters()])
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        super().on_train_end(trainer, pl_module)
        torch.save(self.seen, self.folder / f"rank{trainer.global_rank}.pt")
