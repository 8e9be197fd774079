"""Steps that are skipped because a gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

SKIPPED = "skipped"
"""Under this key of a parameter's state: how many of its steps."""


def asks(group: Mapping[str, Any]) -> bool:
    """Whether a param group skips such steps."""
    return bool(group.get("skip_nonfinite"))


def skips(groups: Iterable[Mapping[str, Any]], state: MutableMapping[Tensor, Any]) -> bool:
    """Whether the groups that ask skip this step, all of them or none; each of their parameters then counts it.

    Waits for the device. Where parameters are sharded, every rank must call it, and all find the same.
    """
    params = [p for group in groups if asks(group) for p in group["params"] if p.grad is not None]
    if not params or all_finite([p.grad for p in params]):
        return False
    for param in params:
        state[param][SKIPPED] = state[param].get(SKIPPED, 0) + 1
    return True


@torch.no_grad()
def all_finite(grads: Sequence[Any]) -> bool:
    """Whether every element is; waits for the device, and for the other ranks where gradients are sharded."""
    alike: dict[Any, list[Tensor]] = {}
    for grad in grads:
        dense = grad.coalesce().values() if grad.is_sparse else grad
        alike.setdefault((dense.device, dense.dtype, isinstance(dense, DTensor)), []).append(dense)
    return all(_are_finite(tensors) for tensors in alike.values())


def _are_finite(tensors: list[Tensor]) -> bool:
    wide = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else None
    norms: Any = torch.stack(torch._foreach_norm(tensors, 2.0, dtype=wide))
    norms = norms.full_tensor() if isinstance(norms, DTensor) else norms
    # A norm may be too large for its type where no element is.
    return bool(norms.isfinite().all()) or all(_whole(tensor.isfinite().all()) for tensor in tensors)


def _whole(flag: Any) -> bool:
    return bool(flag.full_tensor() if isinstance(flag, DTensor) else flag)
