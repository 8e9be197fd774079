"""Shampoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..eigenvectors import inverse_fourth_root
from ..matrices import join_wide, separate_matrices
from ..update import Update
from .matrix_member import MatrixMember


class Shampoo(MatrixMember, name="shampoo"):
    """Gradients between inverse fourth roots of the sums of G Gᵀ and Gᵀ G (Gupta et al., arXiv:1802.09568, alg. 1).

    The roots are computed in the first step and in every `precondition_frequency`-th, in float32 at least. With a beta2
    the sums are running averages. Parameters are read as matrices, a convolution's kernel as one; the paper's method
    for tensors has a factor for each dimension. Sharded parameters are gathered on every rank, and their factors are
    whole on every rank; each decomposition runs on one rank.

    State:
        row_sum: sum or running average of G Gᵀ, of the shape (matrices, rows, rows).
        column_sum: of Gᵀ G, of the shape (matrices, columns, columns).
        row_root: inverse fourth root of row_sum.
        column_root: inverse fourth root of column_sum.

    Raises:
        ConfigError: a parameter is no matrix, or its rows cannot be cut as `split` says.

    Examples:
        >>> from torch import nn
        >>> optimizer = optim.Shampoo([nn.Linear(6, 4).weight], lr=0.1)
        >>> optimizer.shapes(optimizer.param_groups[0], optimizer.param_groups[0]["params"][0])["column_sum"]
        (1, 6, 6)
    """

    def stack_shapes(self, group: ParamGroup, number: int, rows: int, columns: int) -> dict[str, Sequence[int]]:
        row, column = (number, rows, rows), (number, columns, columns)
        return {"row_sum": row, "column_sum": column, "row_root": row, "column_root": column}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b2 = group["beta2"]
        sums = {"b2": 1.0 if b2 is None else b2, "w2": 1.0 if b2 is None else 1 - b2}
        is_due = t == 1 or t % group["precondition_frequency"] == 0
        matrices = {"rows": group["rows"], "columns": group["columns"], "momentum": group["momentum"]}
        return {**sums, **matrices, "is_due": is_due, "eps": group["eps"], "size": group["lr"]}

    @staticmethod
    def update(p, g, left, right, left_root, right_root, b=None, *, b2, w2, rows, columns, momentum, is_due, eps, size):
        x = join_wide(g, rows, columns)
        of_rows = advance_factor(left, left_root, x @ x.mT, b2, w2, eps if is_due else None, p)
        of_columns = advance_factor(right, right_root, x.mT @ x, b2, w2, eps if is_due else None, p)
        d = separate_matrices(of_rows @ x @ of_columns, p)
        return Update(d if b is None else b.mul_(momentum).add_(d), size)


def advance_factor(
    total: Any, root: Any, product: Tensor, decay: float, weight: float, eps: float | None, p: Any
) -> Tensor:
    """Advance a factor, and its root if that is due.

    Args:
        total: the buffer of the sum.
        root: the buffer of its inverse fourth root.
        product: what is added to the sum, of the shape (matrices, n, n).
        decay: what the sum is multiplied by.
        weight: what the product is multiplied by.
        eps: added to the diagonal for the root; None: the root stays as it is.
        p: the parameters.

    Returns:
        The root, of the shape (matrices, n, n).
    """
    n = product.shape[-1]
    new = join_wide(total, n, n).mul(decay).add_(product, alpha=weight)
    total.copy_(separate_matrices(new, total))
    if eps is None:
        return join_wide(root, n, n)
    computed = inverse_fourth_root(new, eps, p)
    root.copy_(separate_matrices(computed, root))
    return computed
