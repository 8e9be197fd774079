"""Sums over many tensors on a CPU in one launch: for rules with a sum over all, and for telemetry of any optimizer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from .compiler import CompileError
from .cut import Cut
from .kernels import Kernel, build_kernel
from .program import SQUARES, SUM, Argument, Program, Rank
from .tables import CHUNK
from .usable import DTYPES


def can_add_up(dtype: torch.dtype, *, absolute: bool = False) -> bool:
    """Whether there is a kernel for tensors of this dtype, which is compiled now if need be."""
    return dtype in DTYPES and _find_kernel(DTYPES[dtype], absolute) is not None


def add_up(tensors: Sequence[Tensor], *, absolute: bool = False) -> tuple[Tensor, Tensor]:
    """The sums of the values and of the squares of each tensor, `(tensors,)` in float64.

    Args:
        tensors: plain ones on the CPU, of one dtype for which there is a kernel.
        absolute: of absolute values instead.
    """
    kernel = _find_kernel(DTYPES[tensors[0].dtype], absolute)
    assert kernel is not None
    dense = tensors
    if any(map(Tensor.is_neg, tensors)) or not all(map(Tensor.is_contiguous, tensors)):
        dense = [tensor if _is_dense(tensor) else tensor.resolve_neg().contiguous() for tensor in tensors]
    addresses = array("q", map(Tensor.data_ptr, dense))
    values, squares = kernel.launch(addresses, _cut(tuple(map(Tensor.numel, dense))), (), torch.device("cpu"))
    return values, squares


@cache
def _find_kernel(dtype: str, absolute: bool) -> Kernel | None:
    program = Program([Argument("x", dtype, Rank.ELEMENT)], [], ndim=1)
    line = program.add("load", rank=Rank.ELEMENT, value=0)
    line = program.add("abs", line) if absolute else line
    for kind in (SUM, SQUARES):
        program.sums[kind, "x"] = program.add(kind, line, rank=Rank.TENSOR)
    try:
        return build_kernel(program, "cpu")
    except CompileError:
        return None


@lru_cache(maxsize=32)
def _cut(sizes: tuple[int, ...]) -> Cut:
    """Tensors of these sizes in chunks."""
    cut = Cut()
    for size in sizes:
        cut.add(size, size, CHUNK)
    return cut


def _is_dense(tensor: Tensor) -> bool:
    """Whether its elements are one piece of memory, in whatever order."""
    if tensor.is_neg():
        return False
    return (
        tensor.is_contiguous()
        or tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).is_contiguous()
    )
