"""`orthogonalize`: an approximation of the nearest orthogonal matrices, by products of a stack of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, repeat

import torch
from torch import Tensor

Polynomial = tuple[float, float, float]
"""a, b, c of x ← a x + (b A + c A²) x, with A = x xᵀ."""

# arXiv:2505.16932, algorithm 1. The last one stays.
_POLAR_EXPRESS: Sequence[Polynomial] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
_SAFETY = 1.01
"""What the norm is multiplied by there, and the polynomials are scaled for: bfloat16 rounds above 1."""
_NAIVE, _SMALL = 400, 16**3
"""On a CPU torch computes the product of a stack in another way where one takes fewer multiplications (torch 2.13); in
bfloat16 it rounds otherwise than a product of two matrices. In 16 bits oneDNN takes a product of two only if it has
more multiplications than `_SMALL`, and one of a stack if the whole stack has."""
_MAX_ELEMENTS = 2**26
"""Of a stack that is worked on at once: what the iterations need beside it is three times its size."""
_ELEMENTS_PER_THREAD = 2**18
"""The same on a CPU: so the iterations stay in its caches, which takes 9 % off their time (AMD EPYC, 256 x 256)."""


def polynomials(coefficients: str, jordan: Polynomial, num_steps: int) -> tuple[Polynomial, ...]:
    """The polynomial of each iteration.

    Args:
        coefficients: `jordan` or `polar_express`.
        jordan: those of `jordan`.
        num_steps: the number of iterations.
    """
    if coefficients == "jordan":
        return (jordan,) * num_steps
    *first, last = _POLAR_EXPRESS
    scaled = ((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in first)
    return tuple(islice(chain(scaled, repeat(last)), num_steps))


def safety(coefficients: str) -> float:
    """What the norms are multiplied by."""
    return 1.0 if coefficients == "jordan" else _SAFETY


def orthogonalize(stack: Tensor, *, polynomials: Sequence[Polynomial], eps: float, safety: float) -> Tensor:
    """Matrices with the singular vectors of the given ones, and singular values near 1.

    One matrix takes the operations of `torch.optim.Muon`, in their order: the result is the same, bit by bit.

    Args:
        stack: of the shape (number, rows, columns); the result has its dtype.
        polynomials: one for each iteration.
        eps: minimum of the norm that a matrix is divided by.
        safety: what the norm is multiplied by.
    """
    number, rows, columns = stack.shape
    if number > (most := find_part_size(rows * columns, stack.device.type)):
        parts = torch.split(stack, most)
        return torch.cat([orthogonalize(part, polynomials=polynomials, eps=eps, safety=safety) for part in parts])
    x = stack.mT if rows > columns else stack
    norms = matrix_norms(x)
    x = x / (norms if safety == 1 else norms * safety).clamp(min=eps)
    if number > 1 and not (x.device.type == "cpu" and _rounds_otherwise(x)):
        x = _iterate(x, polynomials)
    else:
        x = torch.stack([_iterate_one(one, polynomials) for one in x.unbind()])
    return x.mT if rows > columns else x


def find_part_size(num_elements: int, device_type: str) -> int:
    """How many matrices of so many elements are worked on at once; on a CPU each thread has as many as the others."""
    most = max(_MAX_ELEMENTS // num_elements, 1)
    if device_type != "cpu":
        return most
    num_threads = torch.get_num_threads()
    return min(most, num_threads * max(_ELEMENTS_PER_THREAD // num_elements, 1))


def matrix_norms(stack: Tensor) -> Tensor:
    """The Frobenius norm of each matrix, of the shape (number, 1, 1)."""
    # Of each by itself: over two dimensions of a stack torch may add in another order.
    return torch.stack(torch._foreach_norm(stack.unbind())).view(-1, 1, 1)


def _rounds_otherwise(stack: Tensor) -> bool:
    """Whether a CPU rounds a product of a stack otherwise than those of its matrices; the smallest is A A."""
    count = stack.shape[-2] ** 3
    return count < _NAIVE or (stack.element_size() == 2 and count <= _SMALL)


def _iterate_one(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    for a, b, c in polynomials:
        gram = x @ x.mT
        gram = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, gram, x, beta=a)
    return x


def _iterate(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    # Into the same memory each time, that of `x` too: what is written here must stay in the caches.
    number, rows, _ = x.shape
    gram, square = (x.new_empty(number, rows, rows) for _ in range(2))
    buffers = [torch.empty_like(x), x]
    for step, (a, b, c) in enumerate(polynomials):
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=square)
        x = torch.baddbmm(x, square, x, beta=a, out=buffers[step % 2])
    return x
