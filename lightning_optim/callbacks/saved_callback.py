"""`refuse_wrong_state`: what a checkpoint has in place of a callback's state, and is none, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import ConfigError


@contextmanager
def refuse_wrong_state(callback: str) -> Iterator[None]:
    """Raise a ConfigError where the block finds other types or keys in a loaded state than it has saved.

    Args:
        callback: its name.

    Raises:
        ConfigError: as above, or as the block.
    """
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0][:200]
        raise ConfigError(
            f"callbacks.{callback}: the checkpoint's state of this callback has wrong types or lacks keys ({reason}). "
            "Use the checkpoint as it was saved"
        ) from error
