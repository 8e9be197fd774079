"""Copies of a saved state for an optimizer that loads it: torch's load may give it the very tensors of another one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def copy_state(value: Any, param: Tensor | None = None) -> Any:
    """A copy of a state, or of a value in it, in which no tensor is shared.

    Args:
        value: a tensor, a dict, list or tuple of values, or anything else, which is not copied.
        param: the parameter it belongs to; tensors of its shape get its device and memory layout, as torch's classes
            create them.
    """
    if isinstance(value, Tensor):
        return _copy_tensor(value, param)
    if isinstance(value, dict):
        return {key: copy_state(item, param) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([copy_state(item, param) for item in value])
    return value


def _copy_tensor(value: Tensor, param: Tensor | None) -> Tensor:
    is_whole = value.layout == torch.strided and not isinstance(value, DTensor)
    if param is None or not is_whole or value.shape != param.shape or isinstance(param, DTensor):
        return value.detach().clone()
    return torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value.detach())
