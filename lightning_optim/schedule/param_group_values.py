"""Values of a param group, copied and set: an lr may be a number or a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def copied(group: dict[str, Any]) -> dict[str, Any]:
    """A param group that shares no value with the original, a tensor lr neither; only the parameters."""
    return {
        key: value.clone() if isinstance(value, Tensor) and key != "params" else value for key, value in group.items()
    }


def assign(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a group's value; a tensor lr is filled in place, since compiled steps and CUDA graphs hold on to it."""
    if isinstance(group.get(key), Tensor):
        with torch.no_grad():
            group[key].fill_(value)
    else:
        group[key] = value
