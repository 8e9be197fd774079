"""`orthogonalize`: an approximation of the nearest orthogonal matrices, by products of a stack of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, repeat

import torch
from torch import Tensor

from .iterations import Polynomial, find_iterations

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


def orthogonalize(
    stack: Tensor, *, polynomials: Sequence[Polynomial], eps: float, safety: float, by_kernel: bool = False
) -> Tensor:
    """Matrices with the singular vectors of the given ones, and singular values near 1.

    In 16 bits on a CPU they have the bits of one by one, which are those of `torch.optim.Muon`.

    Args:
        stack: of the shape (number, rows, columns); the result has its dtype.
        polynomials: one for each iteration.
        eps: minimum of the norm that a matrix is divided by.
        safety: what the norm is multiplied by.
        by_kernel: whether a compiled kernel may do it, where there is one.
    """
    number, rows, columns = stack.shape
    most = find_part_size(rows * columns, stack.device.type)
    parts = [stack] if number <= most else torch.split(stack, most)
    results = [_orthogonalize(part, polynomials, eps, safety, by_kernel=by_kernel) for part in parts]
    return results[0] if len(results) == 1 else torch.cat(results)


def find_part_size(num_elements: int, device_type: str) -> int:
    """How many matrices of so many elements are worked on at once; on a CPU each thread has as many as the others."""
    most = max(_MAX_ELEMENTS // num_elements, 1)
    if device_type != "cpu":
        return most
    num_threads = torch.get_num_threads()
    return min(most, num_threads * max(_ELEMENTS_PER_THREAD // num_elements, 1))


def _orthogonalize(
    stack: Tensor, polynomials: Sequence[Polynomial], eps: float, safety: float, *, by_kernel: bool
) -> Tensor:
    is_tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if is_tall else stack
    norms = matrix_norms(x)
    x = x / (norms if safety == 1 else norms * safety).clamp(min=eps)
    x = find_iterations(x, by_kernel=by_kernel)(x, polynomials)
    return x.mT if is_tall else x


def matrix_norms(stack: Tensor) -> Tensor:
    """The Frobenius norm of each matrix, of the shape (number, 1, 1)."""
    # Of each by itself: over two dimensions of a stack torch may add in another order.
    return torch.stack(torch._foreach_norm(stack.unbind())).view(-1, 1, 1)
