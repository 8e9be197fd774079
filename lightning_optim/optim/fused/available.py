"""Whether there are kernels for a device, and whether they pay."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from itertools import accumulate

import torch
from torch import Tensor

from ...core.errors import ConfigError
from .compiler import CompileError, cache_folder, find_compiler

LANGUAGES = {"cpu": "C", "cuda": "Triton"}
"""What kernels are written in, by the type of the device."""
MIN_ELEMENTS = 1 << 20
"""From this many on a kernel is worth its compilation: fewer are stepped in about a millisecond by the loop as well."""


def pays_to_fuse(params: Iterable[Tensor], device: torch.device) -> bool:
    """Whether kernels on a device are worth their compilation for these parameters."""
    return device.type == "cpu" and any(total >= MIN_ELEMENTS for total in accumulate(map(Tensor.numel, params)))


def can_compile(device: torch.device) -> bool:
    """Whether there is what compiles kernels for a device."""
    try:
        check_can_compile(device)
    except ConfigError:
        return False
    return True


def check_can_compile(device: torch.device) -> None:
    """Check that there is what compiles kernels for a device.

    Raises:
        ConfigError: there is not; the message begins with `fused`.
    """
    try:
        check_compiler(device.type)
    except CompileError as error:
        raise ConfigError(f"fused: {error}. Type fused: null") from error


def check_compiler(device: str) -> None:
    """Check that kernels for a type of device can be compiled.

    Raises:
        CompileError: they cannot.
    """
    if device == "cpu":
        find_compiler()
        cache_folder()
    elif device != "cuda":
        raise CompileError(f"there are no kernels for {device}")
    elif find_spec("triton") is None:
        raise CompileError("Triton is not installed. Install triton")
