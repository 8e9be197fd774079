"""SOAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..eigenvectors import eigenvectors, refined_eigenvectors
from ..matrices import join_wide, separate_matrices
from ..update import Update
from .matrix_member import MatrixMember


class SOAP(MatrixMember, name="soap"):
    """Adam in the eigenvectors of Shampoo's factors (Vyas et al., arXiv:2409.11321, algorithm 3).

    As in the authors' code, the first gradient only initializes the factors, the first moment is kept unrotated, and
    the eigenvectors are refined every `precondition_frequency` steps by one power iteration and a QR decomposition, in
    float32 at least, which sorts them by their eigenvalues and the second moment with them. A side longer than
    `max_size` is not rotated. Parameters are read as matrices, a convolution's kernel as one. Sharded parameters are
    gathered on every rank, and their factors are whole on every rank; each decomposition runs on one rank.

    State:
        exp_avg: running average of the gradient.
        exp_avg_sq: running average of the square of the rotated gradient.
        row_cov: running average of G Gᵀ, of the shape (matrices, rows, rows); empty if rows > max_size.
        column_cov: of Gᵀ G, of the shape (matrices, columns, columns); empty if columns > max_size.
        row_basis: eigenvectors of row_cov, in its columns.
        column_basis: eigenvectors of column_cov.

    Raises:
        ConfigError: a parameter is no matrix, or its rows cannot be cut as `split` says.

    Examples:
        >>> from torch import nn
        >>> optimizer = optim.SOAP([nn.Linear(6, 4).weight], lr=3e-3, max_size=5)
        >>> optimizer.shapes(optimizer.param_groups[0], optimizer.param_groups[0]["params"][0])
        {'row_cov': (1, 4, 4), 'column_cov': (1, 0, 0), 'row_basis': (1, 4, 4), 'column_basis': (1, 0, 0)}
    """

    def stack_shapes(self, group: ParamGroup, number: int, rows: int, columns: int) -> dict[str, Sequence[int]]:
        row, column = ((number, n, n) if n <= group["max_size"] else (number, 0, 0) for n in (rows, columns))
        return {"row_cov": row, "column_cov": column, "row_basis": row, "column_basis": column}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), beta, every = group["betas"], group["shampoo_beta"], group["precondition_frequency"]
        bias = ((1 - b2 ** (t - 1)) ** 0.5 / (1 - b1 ** (t - 1))) if t > 1 else 0.0
        weights = {"w1": 1 - b1, "w2": 1 - b2, "w3": 1 - (b2 if beta is None else beta)}
        sides = tuple(n if n <= group["max_size"] else 0 for n in (group["rows"], group["columns"]))
        shape = {"rows": group["rows"], "columns": group["columns"], "sides": sides}
        times = {"is_first": t == 1, "is_due": t > 1 and (t - 1) % every == 0}
        return {**weights, **shape, **times, "eps": group["eps"], "size": group["lr"] * bias}

    @staticmethod
    def update(
        p, g, m, v, left, right, q, r, *, rows, columns, sides, is_first, is_due, w1, w2, w3, eps, size
    ) -> Update:
        x = join_wide(g, rows, columns)
        covs = advance((left, right), x, sides, w3)
        if is_first:
            store((q, r), [None if cov is None else eigenvectors(cov, p) for cov in covs])
            return Update(g, size)  # of the size 0
        bases = join_used((q, r), sides)
        m.lerp_(g, w1)
        second = join_wide(v, rows, columns).lerp(rotate(x, bases).square(), w2)
        step = rotate_back(rotate(join_wide(m, rows, columns), bases) / (second.sqrt() + eps), bases)
        v.copy_(separate_matrices(refine((q, r), covs, bases, second, p) if is_due else second, v))
        return Update(separate_matrices(step, p), size)


def join_used(buffers: Sequence[Any], sides: Sequence[int]) -> list[Tensor | None]:
    """The square matrices of each side, of the shape (number, side, side); None for a side of size 0."""
    return [join_wide(buffer, n, n) if n else None for buffer, n in zip(buffers, sides, strict=True)]


def store(buffers: Sequence[Any], stacks: Sequence[Tensor | None]) -> None:
    """Write what `join_used` reads."""
    for buffer, stack in zip(buffers, stacks, strict=True):
        if stack is not None:
            buffer.copy_(separate_matrices(stack, buffer))


def advance(buffers: Sequence[Any], x: Tensor, sides: Sequence[int], weight: float) -> list[Tensor | None]:
    """Advance the covariances of both sides by G Gᵀ and Gᵀ G; returns them."""
    grads = (x, x.mT)
    covs = [
        None if cov is None else cov.lerp(grad @ grad.mT, weight)
        for cov, grad in zip(join_used(buffers, sides), grads, strict=True)
    ]
    store(buffers, covs)
    return covs


def rotate(x: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Qᵀ X R, without the matrices that are None."""
    left, right = bases
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def rotate_back(x: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Q X Rᵀ, without the matrices that are None."""
    left, right = bases
    x = x if left is None else left @ x
    return x if right is None else x @ right.mT


def refine(
    buffers: Sequence[Any], covs: Sequence[Tensor | None], bases: Sequence[Tensor | None], second: Tensor, p: Any
) -> Tensor:
    """Refine and store the eigenvectors of both sides; returns the second moment in their new order."""
    for dim, (buffer, cov, basis) in zip((-2, -1), zip(buffers, covs, bases, strict=True), strict=True):
        if cov is not None and basis is not None:
            vectors, order = refined_eigenvectors(cov, basis, p)
            buffer.copy_(separate_matrices(vectors, buffer))
            second = second.gather(dim, order.unsqueeze(-3 - dim).expand_as(second))
    return second
