"""Checks of command-line arguments that several recipes have."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_optim.core.errors import format_choices


def check_names(
    parser: argparse.ArgumentParser, kind: str, given: Iterable[str], known: Mapping[str, Any]
) -> list[str]:
    """The given names, each once, or all known ones if none is given; another name ends the program with a message."""
    names = list(dict.fromkeys(given or known))
    for name in names:
        if name not in known:
            parser.error(f"there is no {kind} {name!r}.{format_choices(name, known)}")
    return names


def check_folder(parser: argparse.ArgumentParser, option: str, file: Path | None) -> None:
    """Check that the folder of an output file exists, now instead of after minutes of work."""
    if file and not file.parent.is_dir():
        parser.error(f"{option} {file}: there is no folder {file.parent}. Make it first")
