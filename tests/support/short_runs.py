"""Short, silent runs of a LightningModule on eight points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

# Lightning's advice, and its own use of deprecated parts of torch.
IGNORED_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("does not have many workers", "LeafSpec", "Checkpoint directory", "number of training batches")
]


def build_loader() -> DataLoader:
    """Eight points with a label each, in two batches."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)


def build_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """A silent trainer on the CPU, for one epoch by default, which writes below `folder`."""
    defaults = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    return Trainer(accelerator="cpu", default_root_dir=folder, callbacks=[*callbacks], **{**defaults, **options})


def lr_by_group(optimizer: Optimizer) -> dict[str, float]:
    """The lr of each param group by name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
