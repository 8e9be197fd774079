"""`ResumedEpochCallback`: makes up for an epoch that Lightning does not count after a resume between two epochs.

A checkpoint that is written after an epoch's last batch has the end of that epoch still to run. On resume, Lightning
2.6 counts the epoch as processed and goes on with the next one, without its `on_train_epoch_start` and without counting
it as begun. What is saved from then on says that no epoch was unfinished: a second resume repeats its epoch from the
first batch. It shows in `epoch_progress`, which has as many epochs processed as begun while batches are trained.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .lightning_internals import begin_uncounted_epoch
from .saved_loops import count_uncounted_epoch


class ResumedEpochCallback(Callback):
    """Counts the epoch after a resume; the base of our callbacks, each of which may be the only one of a run."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct what a run without these callbacks has saved."""
        count_uncounted_epoch(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the next epoch begin as every other one."""
        begin_uncounted_epoch(trainer)
