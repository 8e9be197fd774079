"""Matrices of unequal heights that the rows of a parameter are cut into, as those of a fused qkv with grouped queries.

Every part is stepped by the rule as a matrix of its own shape. Its state is in slices of the parameter's: of a buffer
with the parameter's shape the same rows, and of any other one, of the shape (matrices, elements), some columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from .finite import full_tensor
from .matrices import shard_like
from .modifiers import map_tensors
from .update import Update


@dataclass(frozen=True, slots=True)
class RowPart:
    """A part of the rows, and what steps it."""

    rows: slice
    """In the parameter."""
    factors: Mapping[int, tuple[slice, tuple[int, ...]]]
    """By the position of a buffer that does not have the parameter's shape: the columns, and their shape."""
    coefficients: Mapping[str, Any]
    """The rule's, for a matrix of this shape."""


def join_shapes(shapes: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Sequence[int]]:
    """The shapes of buffers that hold those of all parts, by name: `(matrices, elements)`.

    Args:
        shapes: of each part's buffers, by name: `(matrices, ...)`.
    """
    return {
        name: (number, sum(prod(of_part[name][1:]) for of_part in shapes)) for name, (number, *_) in shapes[0].items()
    }


def build_parts(
    rows: Sequence[int],
    shapes: Sequence[Mapping[str, Sequence[int]]],
    coefficients: Sequence[Mapping[str, Any]],
    buffers: Sequence[str],
) -> list[RowPart]:
    """The parts of a parameter, from above.

    Args:
        rows: of each part.
        shapes: of each part's buffers that do not have the parameter's shape.
        coefficients: of each part.
        buffers: the names of all buffers, in the order in which the rule takes them.
    """
    parts: list[RowPart] = []
    first, offsets = 0, dict.fromkeys(shapes[0], 0)
    for n, of_part, given in zip(rows, shapes, coefficients, strict=True):
        factors = {}
        for name, (_, *shape) in of_part.items():
            start, offsets[name] = offsets[name], offsets[name] + prod(shape)
            factors[buffers.index(name)] = (slice(start, offsets[name]), tuple(shape))
        parts.append(RowPart(slice(first, first + n), factors, given))
        first += n
    return parts


def step_parts(
    update: Callable[..., Any], p: Any, g: Any, buffers: Sequence[Any], *, parts: Sequence[RowPart], is_stack: bool
) -> tuple[Update, ...]:
    """The updates of a rule that steps each part by itself; sharded parameters are gathered on every rank.

    Args:
        update: the rule, which returns one `Update`.
        p, g, buffers: what it takes of a whole parameter: tensors or `TensorList`s.
        parts: all of them.
        is_stack: whether the last two dimensions are those of a matrix, and not the first one its rows.
    """
    whole_p, whole_g, *wholes = (map_tensors(full_tensor, x) for x in (p, g, *buffers))
    taken: list[Update] = []
    for part in parts:
        cut = _cutter(part.rows, is_stack=is_stack)
        own = [
            map_tensors(_factor_cutter(*part.factors[i]) if i in part.factors else cut, whole)
            for i, whole in enumerate(wholes)
        ]
        taken.append(update(map_tensors(cut, whole_p), map_tensors(cut, whole_g), *own, **part.coefficients))
    for buffer, whole in zip(buffers, wholes, strict=True):
        map_tensors(_write_back, buffer, whole)
    # A part with another size than the first has an update of its own, of zeros elsewhere: sizes are rounded only once.
    joined = []
    for size in dict.fromkeys(step.size for step in taken):
        directions = [step.direction if step.size == size else step.direction * 0.0 for step in taken]
        whole = map_tensors(lambda *pieces: torch.cat(pieces, -2 if is_stack else 0), *directions)
        joined.append(Update(map_tensors(shard_like, whole, p), size))
    return tuple(joined)


def _cutter(rows: slice, *, is_stack: bool) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[..., rows, :] if is_stack else tensor[rows]


def _factor_cutter(columns: slice, shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[:, columns].view(len(tensor), *shape)


def _write_back(buffer: Tensor, whole: Tensor) -> Tensor:
    return buffer.copy_(shard_like(whole, buffer)) if isinstance(buffer, DTensor) else buffer
