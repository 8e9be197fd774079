"""Whether a step is left out because a gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def skips_nonfinite(group: Mapping[str, Any]) -> bool:
    """Whether a param group leaves such steps out."""
    return bool(group.get("skip_nonfinite"))


def should_skip(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these groups leave this step out, all of them or none.

    Waits for the device. Where parameters are sharded, every rank must call it, and all find the same.
    """
    return not all_finite(p.grad for group in groups for p in group["params"] if p.grad is not None)


@torch.no_grad()
def all_finite(grads: Iterable[Any]) -> bool:
    """Whether every element is; waits for the device, and for the other ranks where gradients are sharded."""
    alike: dict[Any, list[Tensor]] = {}
    for grad in grads:
        dense = grad.coalesce().values() if grad.is_sparse else grad
        alike.setdefault((dense.device, dense.dtype, isinstance(dense, DTensor)), []).append(dense)
    # All of them, whatever the first say: other ranks wait.
    found = [_are_finite(tensors) for tensors in alike.values()]
    return all(found)


def _are_finite(tensors: list[Tensor]) -> bool:
    wide = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else None
    norms = full_tensor(torch.stack(torch._foreach_norm(tensors, 2.0, dtype=wide)))
    # A norm may be too large for its type where no element is.
    return bool(norms.isfinite().all()) or all(full_tensor(tensor.isfinite().all()) for tensor in tensors)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with what the other ranks have of it, where it is sharded; then every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
