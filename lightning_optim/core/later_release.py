"""`refuse_unknown`: what a checkpoint holds that this release does not know, because a later one has saved it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .errors import ConfigError, format_names
from .printable import to_printable
from .version import read_version


def refuse_unknown(found: Iterable[object], known: Collection[object], where: str) -> None:
    """Raise where a checkpoint holds something that this release would drop: the run would not be the saved one.

    Args:
        found: keys or names of the checkpoint.
        known: those of this release.
        where: begins the message.

    Raises:
        ConfigError: one is not known.
    """
    if unknown := [to_printable(str(name)) for name in found if name not in known]:
        raise ConfigError(
            f"{where}: the checkpoint has {format_names(unknown, 3)}, which lightning-optim {read_version()} does not "
            "know: a later release has saved it, or what it was saved with is not registered here. Resume with that"
        )
