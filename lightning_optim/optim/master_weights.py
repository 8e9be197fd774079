"""Float32 masters of 16-bit parameters: created and dropped as the param group asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .half_precision import HALF_DTYPES
from .state_keys import MASTER


def is_master_out_of_sync(state: Mapping[str, Any], group: Mapping[str, Any], param: Tensor) -> bool:
    """Whether a master is missing that the group asks for, or there is one that it does not ask for."""
    needed: bool = group["master_weights"] and param.dtype in HALF_DTYPES
    return needed != (MASTER in state)


def switch_master(
    state: dict[str, Any], group: Mapping[str, Any], param: Tensor, fixed_dtype_buffers: Collection[str]
) -> None:
    """Create the master or drop it; the tensors of the parameter's dtype follow.

    Args:
        state: of the parameter; written in place.
        group: its param group.
        param: the 16-bit parameter.
        fixed_dtype_buffers: the buffers that have a dtype of their own, which they keep.
    """
    before = state.pop(MASTER, param).dtype
    if group["master_weights"]:
        state[MASTER] = param.detach().float()
    after = state.get(MASTER, param).dtype
    unchanged = {"step", MASTER, *fixed_dtype_buffers}
    for key, value in state.items():
        if key not in unchanged and isinstance(value, Tensor) and value.dtype == before:
            state[key] = value.to(after)
