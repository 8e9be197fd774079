"""A callback that records this rank's parameters after every step, to compare ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from tests.support.training import StepTrace


class RecordParameters(StepTrace):
    """Writes them to `folder/rank<n>.pt` at the end of a fit; a second fit overwrites the file."""

    def __init__(self, folder: str) -> None:
        super().__init__(lambda _, module: [p.detach().clone() for p in module.parameters()])
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        super().on_train_end(trainer, pl_module)
        torch.save(self.steps, self.folder / f"rank{trainer.global_rank}.pt")
