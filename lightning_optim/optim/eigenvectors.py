"""Eigenvectors and roots of stacks of symmetric matrices; torch has them in float32 and float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import format_names
from .finite import all_finite
from .shared_work import map_in_shares


def inverse_fourth_root(stack: Tensor, eps: float, like: Any = None) -> Tensor:
    """(A + eps I)^(-1/4) of each matrix.

    Args:
        stack: positive semidefinite, of the shape (number, n, n).
        eps: > 0.
        like: the parameters; if they are sharded, the ranks share the decompositions.
    """
    vectors, values = map_in_shares(_eigenvectors_and_values, stack, like).tensor_split([-1], dim=-2)
    values = values.squeeze(-2)
    powers = (values.clamp_min(0.0) + eps).pow(-0.25)
    root: Tensor = (vectors * powers.unsqueeze(-2)) @ vectors.mT
    return root


def eigenvectors(stack: Tensor, like: Any = None) -> Tensor:
    """The eigenvectors of each matrix, in the columns, by falling eigenvalues.

    Args:
        stack: symmetric, of the shape (number, n, n).
        like: the parameters; if they are sharded, the ranks share the decompositions.
    """
    return map_in_shares(lambda share: torch.linalg.eigh(share)[1], stack, like).flip(-1)


def refined_eigenvectors(stack: Tensor, vectors: Tensor, like: Any = None) -> tuple[Tensor, Tensor]:
    """Better eigenvectors, by one power iteration from the given ones and a QR decomposition.

    Args:
        stack: symmetric, of the shape (number, n, n).
        vectors: approximate eigenvectors in the columns, of the same shape and dtype.
        like: the parameters; if they are sharded, the ranks share the decompositions.

    Returns:
        The eigenvectors, sorted by falling estimates of their eigenvalues; and the positions that they had before, of
        the shape (number, n).
    """
    product = stack @ vectors
    order = (vectors * product).sum(-2).argsort(dim=-1, descending=True)
    product = product.gather(-1, order.unsqueeze(-2).expand_as(product))
    return map_in_shares(lambda share: torch.linalg.qr(share)[0], product, like), order


def _eigenvectors_and_values(stack: Tensor) -> Tensor:
    """The eigenvectors in the columns, and below them a row of their eigenvalues."""
    values, vectors = torch.linalg.eigh(stack)
    return torch.cat([vectors, values.unsqueeze(-2)], dim=-2)


def explain_no_decomposition(group: Mapping[str, Any], params: Sequence[Tensor], grads: Sequence[Tensor]) -> str:
    """Why torch has no eigenvectors of what a step has computed from these gradients, and what to type.

    Args:
        group: the param group.
        params: those of the group that were stepped together.
        grads: theirs.
    """
    keys = group.get("param_names") or [f"params[{index}]" for index in range(len(group["params"]))]
    names = {id(param): key for param, key in zip(group["params"], keys, strict=True)}
    nonfinite = [names[id(param)] for param, grad in zip(params, grads, strict=True) if not all_finite([grad])]
    if nonfinite:
        return (
            f"skip_nonfinite: the gradient of {format_names(nonfinite, 3)} is not finite, and its products have no "
            "eigenvectors. Type skip_nonfinite: true to skip such steps, and resume from the last checkpoint"
        )
    return (
        f"param group {group.get('name')!r}: the products of its gradients overflow, or torch finds no eigenvectors of "
        "them. Type for example trainer.gradient_clip_val=1.0, and resume from the last checkpoint"
    )
