"""The iterations of Newton-Schulz over a stack: one matrix after the other, by batched products, or by a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .fused.newton_schulz_kernel import find_kernel
from .half_precision import HALF_DTYPES

Polynomial = tuple[float, float, float]
"""a, b, c of x ← a x + (b A + c A²) x, with A = x xᵀ."""
Iterate = Callable[[Tensor, Sequence[Polynomial]], Tensor]
"""Takes a stack of the shape (number, rows, columns), of no more rows than columns, and may overwrite it. The result is
stored in the same order."""

_NAIVE, _SMALL = 400, 16**3
"""On a CPU torch computes the product of a stack in another way where one takes fewer multiplications (torch 2.13); in
bfloat16 it rounds otherwise than a product of two matrices. In 16 bits oneDNN takes a product of two only if it has
more multiplications than `_SMALL`, and one of a stack if the whole stack has."""
_MAX_ELEMENTS, _MAX_KERNEL_ELEMENTS = 2**22, 2**20
"""Of a matrix. A trial with larger ones would take seconds, and torch multiplies them as fast one after the other; the
kernel is no faster with more than the second number."""
_TRIAL_ELEMENTS, _MAX_TRIAL_MATRICES = 2**18, 32


def find_iterations(stack: Tensor, *, by_kernel: bool) -> Iterate:
    """The fastest way for a stack; on a CPU in 16 bits, the fastest that has the bits of one by one.

    Args:
        stack: what it is called with.
        by_kernel: whether it may be a compiled kernel.
    """
    number, rows, columns = stack.shape
    if stack.device.type != "cpu":
        return iterate_stack if number > 1 else iterate_one_by_one
    num_threads = torch.get_num_threads()
    by_kernel &= stack.dtype == torch.bfloat16 and number >= num_threads and rows * columns <= _MAX_KERNEL_ELEMENTS
    if (number == 1 and not by_kernel) or _multiplies_in_another_way(stack):
        return iterate_one_by_one
    if stack.dtype not in HALF_DTYPES:
        return iterate_stack
    if rows * columns > _MAX_ELEMENTS:
        return iterate_one_by_one
    return _find_exact(rows, columns, stack.dtype, stack.is_contiguous(), num_threads, by_kernel)


def iterate_one_by_one(stack: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """By the operations of `torch.optim.Muon`, in their order: the result is the same, bit by bit."""
    return torch.stack([_iterate_one(x, polynomials) for x in stack.unbind()])


def iterate_stack(stack: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """By batched products."""
    # Into the same memory each time, that of `x` too: what is written here must stay in the caches.
    number, rows, _ = stack.shape
    x = stack.contiguous() if stack.device.type == "cpu" else stack  # otherwise oneDNN adds in another order
    gram, square = (x.new_empty(number, rows, rows) for _ in range(2))
    buffers = [torch.empty_like(x), x]
    for step, (a, b, c) in enumerate(polynomials):
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=square)
        x = torch.baddbmm(x, square, x, beta=a, out=buffers[step % 2])
    return x if buffers[1] is stack else stack.copy_(x)


def _iterate_one(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    for a, b, c in polynomials:
        gram = x @ x.mT
        gram = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, gram, x, beta=a)
    return x


def _multiplies_in_another_way(stack: Tensor) -> bool:
    """Whether a CPU computes a product of a stack otherwise than those of its matrices; the smallest is A A."""
    count = stack.shape[-2] ** 3
    return count < _NAIVE or (stack.dtype in HALF_DTYPES and count <= _SMALL)


@lru_cache(maxsize=1024)
def _find_exact(
    rows: int, columns: int, dtype: torch.dtype, is_contiguous: bool, num_threads: int, by_kernel: bool
) -> Iterate:
    """The fastest way that has the bits of one by one in a trial with these threads.

    In which order oneDNN adds depends on the shape, the processor and the number of threads.
    """
    del num_threads  # a key of the cache
    number = min(max(_TRIAL_ELEMENTS // (rows * columns), 2), _MAX_TRIAL_MATRICES)
    shape = (number, rows, columns) if is_contiguous else (number, columns, rows)
    sample = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu")
    sample = (sample / (rows * columns) ** 0.5).to(dtype)
    sample = sample if is_contiguous else sample.mT
    polynomials = [(3.4445, -4.7750, 2.0315)] * 3
    expected = iterate_one_by_one(sample, polynomials)
    kernel = find_kernel() if by_kernel else None
    for iterate in filter(None, (kernel, iterate_stack)):
        if torch.equal(iterate(sample.clone(), polynomials), expected):
            return iterate
    return iterate_one_by_one
