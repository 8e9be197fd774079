"""Check the checkpoint that a trainer is about to load: its checksums before torch reads it, its contents after that.

A trainer tells no callback of `ckpt_path` before it loads the file: the first of its own methods that is called with
the path is wrapped, from a callback's `setup` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.saved_training import check_training_checkpoint
from ..build.unreadable_file import refuse_unreadable
from ..core.checkpoint_file import check_file
from ..core.errors import prefix_errors
from ..core.printable import to_printable
from .lightning_internals import METADATA_FILE, checkpoint_connector, optimizer_states_by_name, reads_torch_files

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

OPTION = "verify_checkpoints"
_HOW_TO_SKIP = f"give one of the callbacks {OPTION}: false"


class VerifyCheckpointHook:
    """Wraps the method with which a trainer starts to resume; several callbacks share it.

    If any callback of the trainer has `verify_checkpoints=False`, it does nothing. Files that are not local, folders
    of other programs, and what a CheckpointIO of somebody else's reads are left alone.

    Use `install` and `remove`.
    """

    def __init__(self, trainer: Trainer, connector: Any) -> None:
        self._trainer, self._connector = trainer, connector
        self._resume_start = connector.resume_start

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Check what this trainer loads from now on; does nothing if it is checked already."""
        connector = checkpoint_connector(trainer)
        if connector is not None and _find_installed(connector) is None:
            connector.resume_start = cls(trainer, connector).resume_start

    @staticmethod
    def remove(trainer: Trainer) -> None:
        """Restore the trainer's own method."""
        connector = checkpoint_connector(trainer)
        if connector is not None and _find_installed(connector) is not None:
            del connector.resume_start

    def resume_start(self, checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> None:
        """What the trainer calls with the path, None without one."""
        is_checked = self._is_checked(checkpoint_path)
        with optimizer_states_by_name(), self._checked(checkpoint_path) if is_checked else nullcontext():
            self._resume_start(checkpoint_path, *args, **kwargs)

    def _is_checked(self, path: Any) -> bool:
        callbacks: list[Any] = self._trainer.callbacks  # type: ignore[attr-defined]
        is_wanted = all(getattr(callback, OPTION, True) for callback in callbacks)
        # Lightning says itself that there is no such file.
        is_local = bool(path) and "://" not in str(path) and Path(path).exists()
        return is_wanted and is_local and reads_torch_files(self._trainer)

    @contextmanager
    def _checked(self, path: Any) -> Iterator[None]:
        """Checks the file, and within the context also what `strategy.load_checkpoint` returns."""
        path = Path(path)
        file = path / METADATA_FILE if path.is_dir() else path
        if path.is_dir() and not file.exists():
            yield
            return
        check_file(file, how_to_skip=_HOW_TO_SKIP)
        strategy: Any = self._trainer.strategy
        load, own = strategy.load_checkpoint, vars(strategy).get("load_checkpoint")

        def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
            # FSDP's strategies load the optimizers too, whose errors are not about the file.
            with nullcontext() if strategy.restore_checkpoint_after_setup else refuse_unreadable(path):
                content = load(*args, **kwargs)
            with prefix_errors(to_printable(str(path))):
                check_training_checkpoint(content)
            return content

        strategy.load_checkpoint = load_checkpoint
        try:
            yield
        finally:
            del strategy.load_checkpoint
            if own is not None:
                strategy.load_checkpoint = own


def _find_installed(connector: Any) -> VerifyCheckpointHook | None:
    hook = getattr(vars(connector).get("resume_start"), "__self__", None)
    return hook if isinstance(hook, VerifyCheckpointHook) else None
