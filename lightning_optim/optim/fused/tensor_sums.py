"""Sums over many tensors on a CPU in one launch, for telemetry of optimizers that have no kernel."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from .backends import Cut
from .compiler import CompileError
from .kernels import Kernel, build_kernel
from .program import Argument, Program, Rank
from .step_norms import add_sums
from .tables import CHUNK, DTYPES


def can_add_up(dtype: torch.dtype) -> bool:
    """Whether there is a kernel for tensors of this dtype, which is compiled now if need be."""
    return dtype in DTYPES and _find_kernel(DTYPES[dtype]) is not None


def add_up(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The sums of the values and of the squares of each tensor, `(tensors,)` in float64.

    Args:
        tensors: on the CPU, of one dtype for which there is a kernel.
    """
    kernel = _find_kernel(DTYPES[tensors[0].dtype])
    assert kernel is not None
    dense = [tensor if _is_dense(tensor) else tensor.contiguous() for tensor in tensors]
    addresses = array("q", map(Tensor.data_ptr, dense))
    values, squares = kernel.launch(addresses, _cut(tuple(map(Tensor.numel, dense))), (), torch.device("cpu"))
    return values, squares


@cache
def _find_kernel(dtype: str) -> Kernel | None:
    program = Program([Argument("p", dtype, Rank.ELEMENT)], [], ndim=1)
    add_sums(program, [("block_sum", "p"), ("block_squares", "p")])
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
