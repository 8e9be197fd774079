"""`MatrixMember`: a member whose steps are products of matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...core.errors import ConfigError
from ..base import ParamGroup
from ..fused.available import pays_to_fuse
from ..matrices import find_shape_problem, join_matrices, matrix_shape, unequal_rows
from ..newton_schulz import find_part_size, matrix_norms, orthogonalize, polynomials, safety
from ..row_parts import build_parts, join_shapes, step_parts
from ..sharded_matrices import map_matrices
from ..tensor_list import TensorList
from ..update import Update
from .member import Member


class MatrixMember(Member):
    """A member that reads parameters as matrices, and steps those of one shape together."""

    multiplies_matrices: ClassVar[bool] = True

    def check_params(self, group: ParamGroup, params: Iterable[tuple[str, Tensor]], prefix: str) -> None:
        for name, tensor in params:
            if problem := find_shape_problem(name, tensor, group):
                key, text = problem
                text = f"{type(self).__name__} {text} Give it to another optimizer" if key == "params" else text
                raise ConfigError(f"{prefix}{key}: {text}")

    def layout(self, group: ParamGroup, param: Tensor) -> Mapping[str, int]:
        rows, columns = matrix_shape(group, param.shape)
        return {"rows": rows, "columns": columns}

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        stack = self.stack_shape(group, param)
        if (parts := unequal_rows(group["split"])) is None:
            return self.stack_shapes(group, *stack)
        number, _, columns = stack
        return join_shapes([self.stack_shapes(group, number, rows, columns) for rows in parts])

    def stack_shapes(self, group: ParamGroup, number: int, rows: int, columns: int) -> dict[str, Sequence[int]]:
        """As `shapes`, for a stack of matrices: the first dimension of each shape is their number."""
        del group, number, rows, columns
        return {}

    def _compute_coefficients(
        self, t: float, group: ParamGroup, scalars: Mapping[str, float], param: Tensor
    ) -> tuple[dict[str, Any], dict[str, float]]:
        if (rows := unequal_rows(group["split"])) is None:
            return super()._compute_coefficients(t, group, scalars, param)
        columns = self.layout(group, param)["columns"]
        shapes = [self.stack_shapes(group, 1, n, columns) for n in rows]
        coefficients = [self.coefficients(t, {**group, "rows": n, "columns": columns}) for n in rows]
        parts = build_parts(rows, shapes, coefficients, list(self.buffer_dtypes(group)))
        return {"parts": parts, "is_stack": group["matrix"] == "batch"}, {}

    def _compute_updates(
        self, p: Any, g: Any, buffers: Sequence[Any], coefficients: Mapping[str, Any]
    ) -> tuple[Update, ...]:
        if "parts" not in coefficients:
            return super()._compute_updates(p, g, buffers, coefficients)
        return step_parts(self.update, p, g, buffers, **coefficients)

    def tensors_at_once(self, group: ParamGroup, param: Tensor) -> int | None:
        # On a CPU the whole step of some matrices while they are in its caches; sharded ones are dealt out together.
        if "ns_steps" not in group or param.device.type != "cpu" or isinstance(param, DTensor):
            return None
        number, rows, columns = self.stack_shape(group, param)
        return max(find_part_size(rows * columns, "cpu") // number, 1)

    def stack_shape(self, group: ParamGroup, param: Tensor) -> tuple[int, int, int]:
        """`(number, rows, columns)` of the matrices in a parameter."""
        rows, columns = matrix_shape(group, param.shape)
        return param.numel() // max(rows * columns, 1), rows, columns


def lr_ratio(adjustment: str | None, rows: int, columns: int) -> float:
    """What lr is multiplied by for matrices of a shape, as in `torch.optim.Muon`.

    Args:
        adjustment: `original` or None: √max(1, rows / columns), Keller Jordan's; `match_rms_adamw`:
            0.2 √max(rows, columns), which gives updates the RMS of AdamW's (arXiv:2502.16982, section 2.2);
            `spectral_unclamped`: √(rows / columns).
        rows, columns: of a matrix.
    """
    if adjustment == "match_rms_adamw":
        return 0.2 * sqrt(max(rows, columns))
    ratio = rows / columns
    return sqrt(ratio if adjustment == "spectral_unclamped" else max(1, ratio))


def newton_schulz_options(group: ParamGroup, eps: float = 1e-7) -> dict[str, Any]:
    """The arguments of `orthogonalized` and `orthogonal_stack` that a param group asks for.

    Args:
        group: with the layout of its parameters.
        eps: minimum of the norm that a matrix is divided by.
    """
    kind = group["coefficients"]
    return {
        "rows": group["rows"],
        "columns": group["columns"],
        "dtype": torch.bfloat16 if group["ns_dtype"] == "bfloat16" else None,
        "polynomials": polynomials(kind, group["ns_coefficients"], group["ns_steps"]),
        "eps": eps,
        "safety": safety(kind),
        "by_kernel": _may_compile(group),
    }


def _may_compile(group: ParamGroup) -> bool:
    """Whether a kernel is worth its compilation for a group that leaves its execution to us."""
    params = group["params"]
    return group["fused"] is None and group["foreach"] is None and pays_to_fuse(params, params[0].device)


def orthogonalized(x: Any, *, rows: int, columns: int, dtype: torch.dtype | None, **iteration: Any) -> Any:
    """The matrices in a tensor or a `TensorList`, orthogonalized as one stack, in new tensors like `x`.

    Those of sharded parameters are orthogonalized on one rank each.
    """
    return map_matrices(partial(orthogonalize, **iteration), x, rows, columns, dtype)


def orthogonal_stack(x: Any, *, rows: int, columns: int, dtype: torch.dtype | None, **iteration: Any) -> Tensor:
    """As `orthogonalized`, as a stack of the shape (number, rows, columns) and of the dtype of `x`, on every rank."""
    tensors = x.tensors if isinstance(x, TensorList) else [x]
    if not any(isinstance(tensor, DTensor) for tensor in tensors):
        return orthogonalize(join_matrices(x, rows, columns, dtype), **iteration).to(tensors[0].dtype)
    stack = join_matrices(orthogonalized(x, rows=rows, columns=columns, dtype=dtype, **iteration), rows, columns)
    # In the memory as `orthogonalize` leaves it: in this order torch adds.
    return stack.mT.contiguous().mT if rows > columns else stack


def scale_to(norms: Tensor | float, stack: Tensor, eps: float) -> Tensor:
    """The matrices of a stack, each scaled to a norm; a matrix of zeros stays one if `eps` > 0.

    Args:
        norms: of the shape (number, 1, 1), or a number for all.
        stack: of the shape (number, rows, columns).
        eps: added to the norm that a matrix is divided by.
    """
    return stack * (norms / (matrix_norms(stack) + eps))
