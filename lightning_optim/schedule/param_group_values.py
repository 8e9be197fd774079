"""Copy and set the values of a torch param group, where an lr may be a number or a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_MOMENTUM_KEYS = ("betas", "momentum")
WEIGHT_DECAY = "weight_decay"
INITIAL_LR = "initial_lr"
"""The key by which a group shows that a scheduler drives it: torch's schedulers, but for ReduceLROnPlateau, add it."""
SCHEDULER_KEYS = (INITIAL_LR, "max_lr", "min_lr", "max_momentum", "base_momentum")
"""The keys that torch's schedulers add to a group."""


def copy_group(group: dict[str, Any]) -> dict[str, Any]:
    """A copy that shares only the parameters with the original; tensor values, such as an lr, are cloned."""
    return {
        key: value.clone() if isinstance(value, Tensor) and key != "params" else value for key, value in group.items()
    }


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; a tensor is filled in place, because compiled steps and CUDA graphs keep a reference to it."""
    if isinstance(group.get(key), Tensor):
        with torch.no_grad():
            group[key].fill_(value)
    else:
        group[key] = value


def copy_value(value: Any) -> Any:
    """The value; a clone of a tensor."""
    return value.clone() if isinstance(value, Tensor) else value


def momentum_keys(group: Mapping[str, Any]) -> list[str]:
    """The keys of the momentum values in a group; torch's schedulers cycle the first."""
    return [key for key in _MOMENTUM_KEYS if key in group]


def momentum_key(group: Mapping[str, Any]) -> str:
    """The key of the momentum that a scheduler can cycle in a group; '' if there is none."""
    return next(iter(momentum_keys(group)), "")
