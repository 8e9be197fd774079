"""Random generators that a checkpoint forgets, saved and restored."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from .lightning_internals import create_epoch_iterator


class RNGState(Callback):
    """Saves the python, numpy, torch and CUDA generators with every checkpoint, and restores them on resume.

    Dropout, augmentation in the training process and shuffling then go on as though nothing had happened. What it
    cannot do: put a loader without `state_dict` back into the middle of an epoch, or restore worker processes. The
    checkpoint, which rank zero writes, holds every rank's.

    Example:
        >>> callback = RNGState()
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier `validate` or `test` loaded."""
        self._pending = None

    def state_dict(self) -> dict[str, Any]:
        """Every rank's generators, in types that `torch.load(weights_only=True)` accepts; all ranks must call it."""
        own = _generators()
        ranks = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks = [own] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training starts: setting up and the sanity check draw numbers too."""
        self._pending = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore; at the start of an epoch, draw for its iterator too, which Lightning made before."""
        if self._pending is None:
            return
        ranks, self._pending = self._pending["ranks"], None
        if len(ranks) != trainer.world_size:
            rank_zero_warn(
                f"RNGState: the checkpoint holds the generators of {len(ranks)} ranks, and this run has "
                f"{trainer.world_size}. It draws other numbers than the run that was saved"
            )
            return
        _restore(ranks[trainer.global_rank])
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch or not progress.current.ready:
            create_epoch_iterator(trainer)


def _generators() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "python": (version, list(words), gauss),
        "numpy": {
            "bit_generator": numpy["bit_generator"],
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    np.random.set_state(
        {
            "bit_generator": numpy["bit_generator"],
            "state": {"key": numpy["key"].cpu().numpy().astype(np.uint32), "pos": numpy["pos"]},
            "has_gauss": numpy["has_gauss"],
            "gauss": numpy["gauss"],
        }
    )
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
