"""Norms of many tensors in few kernels and one copy to the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Sample:
    """A tensor that counts towards a signal (`norm/grad`, `norm/exp_avg`) of a group."""

    signal: str
    group: str
    parameter: str
    tensor: Tensor


@torch.no_grad()
def norms(samples: Sequence[Sample]) -> list[float]:
    """The L2 norm of each sample, in float32 at least: 16-bit sums would lose the small ones.

    DTensors count whole, at one collective for each kind of tensor, which all ranks must take part in.
    """
    result = [0.0] * len(samples)
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        tensor = sample.tensor
        kind = (tensor.device, tensor.dtype, isinstance(tensor, DTensor) and (tensor.device_mesh, tensor.placements))
        alike.setdefault(kind, []).append(index)
    for indices in alike.values():
        tensors = [samples[index].tensor.detach() for index in indices]
        half = tensors[0].dtype in (torch.float16, torch.bfloat16)
        stacked = torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32 if half else None))
        if isinstance(stacked, DTensor):
            stacked = stacked.full_tensor()
        for index, norm in zip(indices, stacked.tolist(), strict=True):
            result[index] = norm
    return result


def by_group(samples: Sequence[Sample], values: Sequence[float]) -> dict[tuple[str, str], float]:
    """`(signal, group)` → norm over the group's samples, and `(signal, "all")` over all groups'."""
    squares: dict[tuple[str, str], float] = {}
    for sample, value in zip(samples, values, strict=True):
        for group in (sample.group, "all"):
            key = (sample.signal, group)
            squares[key] = squares.get(key, 0.0) + value * value
    return {key: total**0.5 for key, total in squares.items()}


@torch.no_grad()
def cosine(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The cosine of the angle between two lists of tensors, each taken as one vector; 0 where one is all zero."""
    totals = [
        torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()])
        for a, b in ((a.float(), b.float()) for a, b in pairs)
    ]
    if not totals:
        return 0.0
    dot, first, second = torch.stack(totals).double().sum(0).tolist()
    return float(dot / (first * second) ** 0.5) if first and second else 0.0
