"""The installed version of this package."""

from __future__ import annotations

import importlib.metadata


def read_version() -> str:
    """The version in the package's metadata; `0+unknown` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("lightning-optim")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"
