"""Sums over all parameters, of which some may be sharded or on another device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..finite import full_tensor


def global_sum(numbers: Sequence[Tensor]) -> float:
    """The sum of tensors of one element, in float64, with one read from the device."""
    whole = [full_tensor(number) for number in numbers]
    return torch.stack([number.to(whole[0].device, torch.float64).squeeze() for number in whole]).sum().item()
