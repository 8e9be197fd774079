"""The iterations of Newton-Schulz by a compiled kernel, on CPUs that multiply bfloat16 (AMX or AVX-512 BF16)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from ctypes import c_int, c_int64, c_void_p
from functools import cache, partial
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from .compiler import CompileError, load_function

_LOG = logging.getLogger(__name__)


@cache
def find_kernel() -> Callable[[Tensor, Sequence[Sequence[float]]], Tensor] | None:
    """The kernel, compiled now if need be; None where there can be none.

    It takes a stack in bfloat16, of the shape (number, rows, columns) with no more rows than columns, which it
    overwrites, and the polynomials.
    """
    source = files(__package__).joinpath("newton_schulz.c").read_text(encoding="utf-8")
    try:
        space, iterate, may_run = (load_function(source, name) for name in ("find_space", "newton_schulz", "may_run"))
    except CompileError as error:
        _LOG.info("no kernel for Newton-Schulz: %s", error)
        return None
    space.argtypes, space.restype = [c_int64] * 2, c_int64
    iterate.argtypes, iterate.restype = [c_void_p] * 3 + [c_int64] * 4 + [c_int], None
    return partial(_iterate, space, iterate) if may_run() else None


def _iterate(find_space: Any, iterate: Any, stack: Tensor, polynomials: Sequence[Sequence[float]]) -> Tensor:
    number, rows, columns = stack.shape
    dense = stack.contiguous()
    num_threads = min(torch.get_num_threads(), number)
    space = dense.new_empty(num_threads * find_space(rows, columns))
    numbers = torch.tensor(polynomials, dtype=torch.float32, device="cpu")
    pointers = [tensor.data_ptr() for tensor in (dense, numbers, space)]
    iterate(*pointers, number, rows, columns, len(polynomials), num_threads)
    return stack if dense is stack else stack.copy_(dense)
