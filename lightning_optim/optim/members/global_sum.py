"""Sums over all parameters, some of which may be sharded or on another device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..finite import full_tensor
from ..fused.tensor_sums import add_up, can_add_up


def global_sum(tensors: Sequence[Tensor]) -> float:
    """The sum of all elements, in float64, with one read from the device.

    Args:
        tensors: of few elements.
    """
    full = [full_tensor(tensor) for tensor in tensors]
    device = full[0].device
    return torch.cat([tensor.to(device).view(-1) for tensor in full]).to(torch.float64).sum().item()


def sum_each(tensors: Sequence[Tensor], *, absolute: bool = False, by_kernel: bool) -> list[Tensor]:
    """The sum of each tensor, at least in float32: a scalar for each, or a vector for all.

    Args:
        tensors: of one dtype.
        absolute: of absolute values instead.
        by_kernel: by one kernel without temporaries, where there is one for these tensors.
    """
    dtype = tensors[0].dtype
    on_cpu = all(type(tensor) is Tensor and tensor.device.type == "cpu" for tensor in tensors)
    if by_kernel and on_cpu and can_add_up(dtype, absolute=absolute):
        return [add_up(tensors, absolute=absolute)[0]]
    wide = torch.promote_types(dtype.to_real(), torch.float32)
    return [(tensor.abs() if absolute else tensor).sum(dtype=wide) for tensor in tensors]
