"""Parameters as matrices: their shapes, and stacks of all matrices of one shape, so that products are batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from .finite import full_tensor
from .half_precision import HALF_DTYPES
from .tensor_list import TensorList

_AMBIGUOUS = 3
"""A parameter of so many dimensions is the kernel of a `Conv1d` or a stack of matrices."""


def matrix_shape(group: Mapping[str, Any], shape: Sequence[int]) -> tuple[int, int]:
    """`(rows, columns)` of each of the matrices in a parameter, of which unequal parts are still one.

    Args:
        group: has `matrix`, as the catalog describes it, and `split`.
        shape: of the parameter, for which `find_shape_problem` finds none.
    """
    is_stack = group["matrix"] == "batch"
    rows, columns = (shape[-2], shape[-1]) if is_stack else (shape[0], prod(shape[1:]))
    return rows // (1 if unequal_rows(group["split"]) else count_parts(group["split"])), columns


def unequal_rows(split: int | Sequence[int]) -> tuple[int, ...] | None:
    """The rows of each part; None if all parts are equal, which then are a stack of matrices.

    Args:
        split: number of equal parts, or the rows of each part.
    """
    return None if isinstance(split, int) or len(set(split)) == 1 else tuple(split)


def count_parts(split: int | Sequence[int]) -> int:
    """The number of parts that the rows are cut into."""
    return split if isinstance(split, int) else len(split)


def find_shape_problem(name: str, tensor: Tensor, group: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a parameter cannot be read as matrices, or None.

    Args:
        name: of the parameter.
        tensor: the parameter.
        group: has `matrix` and `split`.

    Returns:
        The key that it is about, `params`, `matrix` or `split`, and the text after it.
    """
    shape = list(tensor.shape)
    if tensor.ndim < 2:
        return "params", f"takes matrices, parameters of two or more dimensions; {name} has the shape {shape}."
    if tensor.is_complex():
        return "params", f"takes matrices of real numbers; {name} is complex."
    if tensor.ndim == _AMBIGUOUS and group["matrix"] is None:
        return "matrix", (
            f"{name} has the shape {shape}: one matrix of {shape[0]} rows, as the kernel of a Conv1d, or a stack of "
            f"{shape[0]} matrices? Type matrix: flatten or matrix: batch"
        )
    return _find_split_problem(name, shape, shape[-2] if group["matrix"] == "batch" else shape[0], group["split"])


def _find_split_problem(
    name: str, shape: Sequence[int], rows: int, split: int | Sequence[int]
) -> tuple[str, str] | None:
    if not isinstance(split, int):
        if sum(split) == rows:
            return None
        return "split", (
            f"got {list(split)}, together {sum(split)} rows, but {name}, of the shape {shape}, has {rows}. Type the "
            f"rows of each part, together {rows}, or give it a group of its own, with split: 1"
        )
    if rows % split:
        return "split", (
            f"got {split}, but the {rows} rows of {name}, of the shape {shape}, cannot be cut into so many equal "
            f"parts. Type the rows of each part, together {rows}, or give it a group of its own, with split: 1"
        )
    return None


def join_wide(x: Tensor | TensorList, rows: int, columns: int) -> Tensor:
    """As `join_matrices`, 16-bit numbers in float32: torch's decompositions take no others."""
    tensor = x.tensors[0] if isinstance(x, TensorList) else x
    return join_matrices(x, rows, columns, torch.float32 if tensor.dtype in HALF_DTYPES else None)


def join_matrices(x: Tensor | TensorList, rows: int, columns: int, dtype: torch.dtype | None = None) -> Tensor:
    """All matrices of some tensors, of the shape (number, rows, columns); sharded tensors are gathered.

    Args:
        x: whose elements, in their order, are matrices of this shape.
        rows, columns: of each matrix.
        dtype: of the result; None: theirs.
    """
    tensors = x.tensors if isinstance(x, TensorList) else [x]
    if dtype is not None and len(tensors) > 1 and not any(isinstance(tensor, DTensor) for tensor in tensors):
        pieces = [tensor.reshape(-1, rows, columns) for tensor in tensors]
        counts = [len(piece) for piece in pieces]
        stack = tensors[0].new_empty((sum(counts), rows, columns), dtype=dtype)
        torch._foreach_copy_(list(torch.split(stack, counts)), pieces)
        return stack
    # Cast first: then fewer bytes are gathered.
    whole = (full_tensor(tensor if dtype is None else tensor.to(dtype)) for tensor in tensors)
    stacks = [tensor.reshape(-1, rows, columns) for tensor in whole]
    return stacks[0] if len(stacks) == 1 else torch.cat(stacks)


def separate_matrices(stack: Tensor, like: Any) -> Any:
    """What `join_matrices` has joined, as new tensors like the given ones: of their shapes, dtypes and shardings.

    Args:
        stack: of the shape (number, rows, columns).
        like: a tensor or a `TensorList`.
    """
    if not isinstance(like, TensorList):
        return _as(stack, like)
    counts = [tensor.numel() // (stack.shape[-2] * stack.shape[-1]) for tensor in like.tensors]
    if len(dtypes := {tensor.dtype for tensor in like.tensors}) == 1:
        stack = stack.to(dtypes.pop())  # all in one call
    pieces = zip(torch.split(stack, counts), like.tensors, strict=True)
    return TensorList([_as(piece, tensor) for piece, tensor in pieces])


def shard_like(whole: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that every rank has, sharded like another one if that is: each rank takes its part, nothing is sent."""
    if not isinstance(tensor, DTensor):
        return whole
    everywhere = [Replicate()] * tensor.device_mesh.ndim
    replicated = DTensor.from_local(whole, tensor.device_mesh, everywhere, run_check=False)
    return replicated.redistribute(placements=tensor.placements)


def _as(matrices: Tensor, tensor: Tensor) -> Tensor:
    return shard_like(matrices.reshape(tensor.shape).to(tensor.dtype), tensor)
