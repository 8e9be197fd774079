"""RNGState: what a checkpoint does not hold: random generators, accumulated gradients, metrics of ReduceLROnPlateau."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..core.errors import checks_arguments, prefix_errors
from ..core.hyperparameters import Flag
from ..core.later_release import refuse_unknown
from .accumulated_gradients import AccumulatedGradients
from .lightning_internals import create_epoch_iterator, is_between_epochs
from .plateau_callback import PlateauCallback
from .saved_callback import refuse_wrong_state
from .verify_checkpoint import OPTION, VerifyCheckpointHook

_PLATEAUS, _GRADIENTS = "plateaus", "gradients"


class RNGState(PlateauCallback):
    """Saves the python, numpy, torch and CUDA generators with every checkpoint, and restores them on resume.

    Dropout, augmentation in the training process and shuffling then continue as in an uninterrupted run. It cannot put
    a loader without `state_dict` back into the middle of an epoch, or restore worker processes. The checkpoint, which
    rank zero writes, holds the generators of every rank.

    ReduceLROnPlateau resumes as it was too: Lightning does not step it at the end of the first epoch after a resume.
    And so does a step that was accumulating batches: a checkpoint that is saved between them holds their gradients. On
    several ranks it does not, and its resume warns that the step lacks them.

    Args:
        verify_checkpoints: False: load a checkpoint without a check of its checksums and contents.

    Examples:
        >>> callback = RNGState()
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(self, *, verify_checkpoints: bool = True) -> None:
        self.verify_checkpoints: bool = Flag(default=True).check(verify_checkpoints, OPTION)
        self._loaded_state: dict[str, Any] | None = None
        self._gradients = AccumulatedGradients()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop what an earlier `validate` or `test` has loaded; check what this run will load."""
        VerifyCheckpointHook.install(trainer)
        self._loaded_state = None
        self.prepare_plateaus(trainer, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop checking, and restore the schedulers."""
        VerifyCheckpointHook.remove(trainer)
        self.close_plateaus()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop checking after an error too: Lightning calls no teardown then."""
        VerifyCheckpointHook.remove(trainer)
        super().on_exception(trainer, pl_module, exception)

    def state_dict(self) -> dict[str, Any]:
        """Every rank's generators, in types that `torch.load(weights_only=True)` accepts; all ranks must call it.

        With the metrics of ReduceLROnPlateau, where there is such a scheduler.
        """
        own = _read_generators()
        ranks = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks = [own] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        plateaus = self.plateau_state()
        return {"ranks": ranks} if plateaus is None else {"ranks": ranks, _PLATEAUS: plateaus}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """The gradients of this batch are about to be added."""
        self._gradients.before_backward(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Between accumulated batches, add their gradients to what `state_dict` has returned."""
        if self._loaded_state is not None:  # stopped before they were restored
            gradients = self._loaded_state.get(_GRADIENTS)
        else:
            gradients = self._gradients.read(trainer, pl_module)
        if gradients is not None:
            checkpoint["callbacks"][self.state_key][_GRADIENTS] = gradients

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """If a scheduler waits for a metric, let Lightning run the end of the epoch that it would skip."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        state = checkpoint["callbacks"].get(self.state_key, {})
        with refuse_wrong_state("RNGState"):
            if self._plateaus is not None and _PLATEAUS in state:
                self._plateaus.on_load_checkpoint(checkpoint, state[_PLATEAUS])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the state until training starts: setup and the sanity check draw random numbers too."""
        self._loaded_state = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore this rank's generators; between epochs, also draw what the next epoch's iterator had drawn."""
        state, self._loaded_state = self._loaded_state, None
        if state is None:
            super().on_train_start(trainer, pl_module)
            return
        with refuse_wrong_state("RNGState"), prefix_errors("callbacks.RNGState"):
            refuse_unknown(state, ("ranks", _PLATEAUS, _GRADIENTS), "state")
            if _GRADIENTS in state:
                self._gradients.restore(pl_module, state[_GRADIENTS])
            if _PLATEAUS in state:
                self.restore_plateaus(state[_PLATEAUS])
            ranks = list(state["ranks"])
        super().on_train_start(trainer, pl_module)
        if len(ranks) != trainer.world_size:
            rank_zero_warn(
                f"RNGState: the checkpoint holds the generators of {len(ranks)} ranks, and this run has "
                f"{trainer.world_size}. It draws other random numbers than the saved run would have"
            )
            return
        with refuse_wrong_state("RNGState"), prefix_errors("callbacks.RNGState"):
            refuse_unknown(ranks[trainer.global_rank], ("python", "numpy", "torch", "cuda"), "ranks")
            _restore_generators(ranks[trainer.global_rank])
        # Lightning has created the epoch's iterator before this hook.
        if is_between_epochs(trainer):
            create_epoch_iterator(trainer)


def _read_generators() -> dict[str, Any]:
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


def _check_generators(state: dict[str, Any]) -> None:
    """Check the kinds of numbers: the generators convert others to some state in silence.

    Raises:
        ValueError: they are no state of generators.
    """
    own = _read_generators()
    _, words, gauss = state["python"]
    is_python = all(type(word) is int for word in words) and (gauss is None or type(gauss) is float)
    numpy, current = state["numpy"], own["numpy"]
    is_numpy = numpy["bit_generator"] == current["bit_generator"] and _is_like(current["key"], numpy["key"])
    is_numpy = is_numpy and type(numpy["pos"]) is int and 0 <= numpy["pos"] <= len(current["key"])
    is_numpy = is_numpy and bool(((numpy["key"] >= 0) & (numpy["key"] < 1 << 32)).all())
    is_numpy = is_numpy and numpy["has_gauss"] in (0, 1) and math.isfinite(numpy["gauss"])
    cuda = state["cuda"]
    is_torch = _is_like(own["torch"], state["torch"]) and isinstance(cuda, (list, tuple))
    is_torch = is_torch and all(isinstance(it, torch.Tensor) and it.dtype == torch.uint8 for it in cuda)
    for name, is_right in (("python", is_python), ("numpy", is_numpy), ("torch", is_torch)):
        if not is_right:
            raise ValueError(f"{name}: this is no state of its generator")


def _is_like(own: torch.Tensor, saved: Any) -> bool:
    is_plain = isinstance(saved, torch.Tensor) and saved.layout == torch.strided and not saved.is_meta
    return is_plain and saved.dtype == own.dtype and saved.shape == own.shape


def _restore_generators(state: dict[str, Any]) -> None:
    _check_generators(state)
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
