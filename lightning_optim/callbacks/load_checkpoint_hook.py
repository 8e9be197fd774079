"""Read a callback's state before a strategy loads weights and optimizers together, as FSDP2's does after setup."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .lightning_internals import callback_state


class LoadCheckpointHook:
    """Wraps a strategy's `load_checkpoint` until it is removed.

    Args:
        strategy: the trainer's strategy.
        state_key: the callback's.
        around_load: called with the callback's saved state, None if there is none; the checkpoint is loaded within the
            context that it returns.
    """

    def __init__(
        self,
        strategy: Any,
        state_key: str,
        around_load: Callable[[dict[str, Any] | None], AbstractContextManager[None]],
    ) -> None:
        self._strategy = strategy
        original = strategy.load_checkpoint

        def load_checkpoint(checkpoint_path: Any, weights_only: bool | None = None) -> Any:
            path = strategy.broadcast(checkpoint_path)
            with around_load(callback_state(path, state_key, weights_only)):
                return original(checkpoint_path, weights_only=weights_only)

        strategy.load_checkpoint = load_checkpoint

    def remove(self) -> None:
        """Restore the strategy's own method."""
        vars(self._strategy).pop("load_checkpoint", None)
