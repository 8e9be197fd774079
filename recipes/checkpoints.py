"""Checkpoints that a kill cannot spoil, and that say where a run was."""

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
    """Writes beside the target, then renames: the last checkpoint is whole whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save to `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)


class Whereabouts(Callback):
    """Puts into each checkpoint what the rest of the run needs to know beside the weights.

    Args:
        phase: which training this is.
        settings: what decides the data: plain values, which a resumed run must share.
    """

    def __init__(self, phase: str, settings: Mapping[str, Any]) -> None:
        self._saved = {"phase": phase, "settings": dict(settings)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add it."""
        checkpoint[_KEY] = self._saved


def peek(path: str, settings: Mapping[str, Any]) -> tuple[str, int]:
    """The phase that a checkpoint was saved in, and the logger step that comes next.

    Raises:
        ConfigError: there is no such file, it is of another recipe, or it was trained on other data.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path: there is no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ConfigError(f"ckpt_path: {path} cannot be read as a checkpoint") from error
    if not isinstance(checkpoint, dict) or _KEY not in checkpoint:
        raise ConfigError(f"ckpt_path: {path} is no checkpoint of this recipe")
    saved = checkpoint[_KEY]
    for key, value in saved["settings"].items():
        if settings.get(key) != value:
            raise ConfigError(
                f"{key}: {settings.get(key)!r}, but the checkpoint was trained with {key}={value}. Type {key}={value}"
            )
    return saved["phase"], int(checkpoint["global_step"])
