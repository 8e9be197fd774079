"""The installed versions of this package and of torch."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from functools import cache


def read_version() -> str:
    """The version in the package's metadata; `0+unknown` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("lightning-optim")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def read_torch_version() -> str:
    """The version of torch: of the loaded one, else from the metadata, because this does not import torch."""
    torch = sys.modules.get("torch")
    return str(torch.__version__) if torch is not None else _read_torch_metadata()


def is_torch_at_least(version: str) -> bool:
    """Whether the installed torch is of this version, such as 2.14, or a newer one; pre-releases count."""
    return _numbers(read_torch_version()) >= _numbers(version)


@cache
def _read_torch_metadata() -> str:
    return importlib.metadata.version("torch")


def _numbers(version: str) -> list[int]:
    """The leading numbers: [2, 14, 1] for 2.14.1+cpu."""
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in match[0].split(".")] if match else []
