"""Checkpoints that are written atomically, and that record the phase and the data of the run."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_optim import ConfigError
from lightning_optim.build.unreadable_file import refuse_unreadable
from lightning_optim.core.checkpoint_file import check_file
from lightning_optim.core.errors import prefix_errors

_KEY = "recipe"
_HOST = platform.node()
_WRITING: set[str] = set()
"""The temporary files that this process is writing. A process may have the number of an earlier one."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, then renames it: the last checkpoint is complete whenever the process is killed.

    The temporary file is removed where writing fails. That of a process that was killed is removed when the next
    checkpoint is written into its folder, on the same host.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save to `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{_HOST}.{os.getpid()}.tmp")
        _WRITING.add(temporary.name)
        try:
            _remove_leftovers(target.parent)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
        finally:
            _WRITING.discard(temporary.name)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this host that are gone."""
    for file in folder.glob(f".*.{glob.escape(_HOST)}.*.tmp"):
        pid = file.name.split(".")[-2]
        if file.name not in _WRITING and pid.isdecimal() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            file.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


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
        ConfigError: the file does not exist, is damaged, is no checkpoint of this recipe, or was trained on other data.
    """
    with prefix_errors("ckpt_path"):
        check_file(Path(path), how_to_skip="load it with torch.load and save it again")
        with refuse_unreadable(Path(path)):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or _KEY not in checkpoint:
        raise ConfigError(f"ckpt_path: {path} is no checkpoint of this recipe")
    record, step = checkpoint[_KEY], checkpoint.get("global_step")
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict) or not isinstance(step, int):
        raise ConfigError(f"ckpt_path: {path}: its record of phase, settings and step is damaged")
    for key, value in record["settings"].items():
        if settings.get(key) != value:
            raise ConfigError(
                f"{key}: {settings.get(key)!r}, but the checkpoint was trained with {key}={value}. Type {key}={value}"
            )
    return str(record.get("phase")), step
