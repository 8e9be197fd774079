"""`refuse_unreadable`: an error of `torch.load`, whatever it is, as one line that names the file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..core.checkpoint_file import is_archive
from ..core.errors import ConfigError, format_names
from ..core.printable import to_printable


@contextmanager
def refuse_unreadable(path: Path) -> Iterator[None]:
    """Raise a ConfigError in place of what `torch.load` raises inside the block for this file.

    torch's own message for a class that it does not consider safe advises `weights_only=False`, which runs whatever the
    file says.

    Args:
        path: a local file.

    Raises:
        ConfigError: torch cannot load it, or refuses a class in it.
    """
    try:
        yield
    except ConfigError as error:  # of a factory in the file
        if str(error).startswith(name := to_printable(str(path))):
            raise
        raise ConfigError(f"{name}: {to_printable(str(error))}") from None
    except pickle.UnpicklingError as error:
        if names := _unsafe_names(path, str(error)):
            raise ConfigError(
                f"{to_printable(str(path))}: torch.load(weights_only=True) refuses {format_names(names)} in it, as "
                "loading that runs code that the file names. Save plain containers in its place: dicts, lists, "
                "numbers, text and tensors. Of hyperparameters, save_hyperparameters(ignore=[...]) leaves a network "
                "out, and Hydra's _convert_: all makes lists plain. For a class of your own, and only if you trust the "
                "file, torch.serialization.add_safe_globals allows that class alone"
            ) from None
        raise ConfigError(f"{to_printable(str(path))}: {_describe(error)}") from None
    except Exception as error:  # torch's unpickler may raise anything for a file of another program
        raise ConfigError(f"{to_printable(str(path))}: {_describe(error)}") from None


def _unsafe_names(path: Path, message: str) -> list[str]:
    """The classes and functions in the file that torch does not consider safe."""
    names: list[str] = []
    if is_archive(path):
        try:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # reads the pickle once more, which a hostile one may make impossible
            names = []
    return [to_printable(name[:100]) for name in names or re.findall(r"GLOBAL ([\w.]+)", message)[:1]]


def _describe(error: Exception) -> str:
    # torch puts advice before the reason that does not apply here.
    _, _, reason = str(error).rpartition("WeightsUnpickler error: ")
    lines = reason.strip().splitlines() or [type(error).__name__]
    line = re.sub(r"[^.]*weights_only.*", "", lines[0]) or type(error).__name__
    return (
        f"torch cannot load it: {to_printable(line[:300].strip().rstrip('.'))}. A Lightning checkpoint or a torch.save "
        "file of tensors and plain containers is needed"
    )
