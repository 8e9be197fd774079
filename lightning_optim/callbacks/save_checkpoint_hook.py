"""Do something around every checkpoint that a trainer writes, also around those of weights only.

Lightning calls `on_save_checkpoint` of callbacks after it has read the module's weights, and not at all for a
checkpoint of weights only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class SaveCheckpointHook:
    """Wraps a trainer's `save_checkpoint`, which ModelCheckpoint, OnExceptionCheckpoint and users call.

    Use `install` and `remove`.
    """

    def __init__(self, trainer: Trainer, around: Callable[[], AbstractContextManager[None]]) -> None:
        self._save_checkpoint, self._around = trainer.save_checkpoint, around

    @classmethod
    def install(cls, trainer: Trainer, around: Callable[[], AbstractContextManager[None]]) -> None:
        """Write this trainer's checkpoints within the context that `around` returns, from now on."""
        cls.remove(trainer)
        trainer.save_checkpoint = cls(trainer, around).save_checkpoint  # type: ignore[method-assign]

    @staticmethod
    def remove(trainer: Trainer) -> None:
        """Restore the trainer's own method; does nothing if no hook is installed."""
        own = vars(trainer).get("save_checkpoint")
        if isinstance(getattr(own, "__self__", None), SaveCheckpointHook):
            del trainer.save_checkpoint

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """What is called in place of the trainer's own method."""
        with self._around():
            self._save_checkpoint(*args, **kwargs)
