"""Whether to skip a step because a gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from .half_precision import HALF_DTYPES


def skips_nonfinite(group: Mapping[str, Any]) -> bool:
    """Whether a param group skips steps with a non-finite gradient."""
    return bool(group.get("skip_nonfinite"))


def should_skip(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these groups skip this step: all of them, or none.

    Waits for the device. Where parameters are sharded, every rank must call it; all get the same answer.
    """
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return bool(grads) and not all_finite(grads)


@torch.no_grad()
def all_finite(grads: Iterable[Any]) -> bool:
    """Whether every element is finite; waits for the device and, where gradients are sharded, for the other ranks."""
    by_kind: dict[Any, list[Tensor]] = {}
    for grad in grads:
        dense = grad.coalesce().values() if grad.is_sparse else grad
        by_kind.setdefault((dense.device, dense.dtype, isinstance(dense, DTensor)), []).append(dense)
    # Check all kinds, even after one was not finite: other ranks wait for each of them.
    results = [_are_finite(tensors) for tensors in by_kind.values()]
    return all(results)


def _are_finite(tensors: list[Tensor]) -> bool:
    wide = torch.float32 if tensors[0].dtype in HALF_DTYPES else None
    norms = full_tensor(torch.stack(torch._foreach_norm(tensors, 2.0, dtype=wide)))
    # A norm can overflow although every element is finite.
    return bool(norms.isfinite().all()) or all(full_tensor(tensor.isfinite().all()) for tensor in tensors)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor where it is sharded, in which case every rank must call it; else the tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
