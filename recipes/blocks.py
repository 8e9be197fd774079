"""A transformer that thaws block by block, to be watched in TensorBoard: `python -m recipes.blocks`.

An encoder of six blocks reads the rows of clean digits. Its head trains first, then one block more in each epoch, from
the last to the first: 16 param groups in the end, half of them without weight decay.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory, StagedUnfreeze, configure_optimizers

from .digits import CLASSES, Digits
from .finetune import silence_warnings

NUM_BLOCKS = 6
ROWS, COLUMNS, WIDTH = 8, 8, 64
STAGES: dict[str, Any] = {
    "head": {"params": "head"},
    "blocks": {"params": "backbone", "layers": "auto", "at": {"epoch": 1}, "each": {"epochs": 1}},
    "rest": {"params": "backbone", "at": {"after": {"epochs": 1}}},
}
RULES: dict[str, Any] = {
    "layers": {"layers": "auto", "layer_decay": 0.8},
    "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0.0},
}


class Backbone(nn.Module):
    """The rows of an image as tokens, through all blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(COLUMNS, WIDTH)
        self.position = nn.Parameter(torch.randn(ROWS, WIDTH) / WIDTH**0.5)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True) for _ in range(NUM_BLOCKS)
        )

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 1, 8, 8)` → `(n, width)`."""
        tokens: Tensor = self.embedding(images.squeeze(1)) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mean(1)


class DigitsEncoder(LightningModule):
    """Classifies digits."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), nn.Linear(WIDTH, CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.head(self.backbone(images)), labels)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, with a smaller lr for earlier blocks and a warm-up."""
        optimizer = OptimizerFactory("adamw", lr=3e-3, weight_decay=0.05, groups=RULES)
        return configure_optimizers(self, optimizer, SchedulerFactory("cosine_annealing", warmup_steps=20))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the command that shows the curves."""
    parser = argparse.ArgumentParser(prog="python -m recipes.blocks", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/blocks"), help="where the run is logged")
    parser.add_argument("--epochs", type=int, default=NUM_BLOCKS + 4)
    parser.add_argument("--flat", action="store_true", help="all groups in one run of TensorBoard: a chart for each")
    options = parser.parse_args(arguments)
    silence_warnings()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=options.epochs,
        logger=TensorBoardLogger(str(options.folder), name=""),
        log_every_n_steps=1,
        callbacks=[StagedUnfreeze(STAGES), OptimizerMonitor(update_norm=True, overlay=not options.flat)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Digits(seed=0, noise=0.0, labels_per_class=None, batch_size=64, test_size=300, val_size=300)
    trainer.fit(DigitsEncoder(), data.train_dataloader())
    print(f"See the run: tensorboard --logdir {options.folder}")


if __name__ == "__main__":
    main()
