"""A sum over all parameters, some of which may be sharded or on another device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..finite import full_tensor


def global_sum(numbers: Sequence[Tensor]) -> float:
    """The sum of tensors of one element each, in float64, with one read from the device."""
    full = [full_tensor(number) for number in numbers]
    return torch.stack([number.to(full[0].device, torch.float64).squeeze() for number in full]).sum().item()
