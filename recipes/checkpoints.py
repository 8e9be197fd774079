"""Checkpoints that are written atomically, and that record the phase and the data of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_optim import ConfigError

_KEY = "recipe"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, then renames it: the last checkpoint is complete whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save to `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


class RecordRun(Callback):
    """Adds to each checkpoint what a resumed run must know besides the weights.

    Args:
        phase: which training this is.
        settings: what determines the data: plain values, which a resumed run must share.
    """

    def __init__(self, phase: str, settings: Mapping[str, Any]) -> None:
        self._record = {"phase": phase, "settings": dict(settings)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add phase and settings."""
        checkpoint[_KEY] = self._record


def read_phase_and_step(path: str, settings: Mapping[str, Any]) -> tuple[str, int]:
    """The phase that a checkpoint was saved in, and the next step to log.

    Raises:
        ConfigError: the file does not exist, is not a checkpoint of this recipe, or was trained on other data.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path: there is no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ConfigError(f"ckpt_path: {path} cannot be read as a checkpoint") from error
    if not isinstance(checkpoint, dict) or _KEY not in checkpoint:
        raise ConfigError(f"ckpt_path: {path} is no checkpoint of this recipe")
    record = checkpoint[_KEY]
    for key, value in record["settings"].items():
        if settings.get(key) != value:
            raise ConfigError(
                f"{key}: {settings.get(key)!r}, but the checkpoint was trained with {key}={value}. Type {key}={value}"
            )
    return record["phase"], int(checkpoint["global_step"])
