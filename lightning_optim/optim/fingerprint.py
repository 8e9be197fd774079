"""`Fingerprint`: whether tensors are still what they were, and where they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

PLAIN_TYPES = frozenset({Tensor, torch.nn.Parameter})


class _Descriptions:
    """What Dynamo's `TensorGuards` does, in Python: five times as long."""

    def __init__(self, *tensors: Tensor, **_: Any) -> None:
        self._descriptions = list(map(_describe, tensors))

    def check(self, *tensors: Any) -> bool:
        """Whether these are such tensors."""
        return list(map(_describe, tensors)) == self._descriptions


def _describe(tensor: Any) -> Any:
    if not isinstance(tensor, Tensor):
        return None
    kind = type(tensor), tensor.dtype, tensor.device, tensor.layout, tensor.shape
    return kind if tensor.layout != torch.strided else (*kind, tensor.stride(), tensor.is_conj(), tensor.is_neg())


def _choose_guards() -> Any:
    """Dynamo's class, which is private, if this torch has it as torch 2.13 has."""
    x = torch.empty(2, device="cpu")
    try:
        guards: Any = torch._C._dynamo.guards.TensorGuards
        known = guards(x, dynamic_dims_sizes=[[2]], dynamic_dims_strides=[[1]])
        works = known.check(x) and not known.check(x[:1])
    except (AttributeError, TypeError):
        return _Descriptions
    return guards if works else _Descriptions


_Guards = _choose_guards()


class Fingerprint:
    """What plain dense tensors are, and where some of them are: what a step need not find out again.

    It holds no tensor. Others in their place are the same if they have the same type, dtype, device, shape and strides,
    no lazy conjugation or negation that those did not have, and, where they must not move, the same address.

    Args:
        moving: tensors that may be anywhere.
        fixed: tensors that must stay where they are.
    """

    def __init__(self, moving: Sequence[Tensor], fixed: Sequence[Tensor]) -> None:
        tensors = [*moving, *fixed]
        shapes, strides = [[*tensor.shape] for tensor in tensors], [[*tensor.stride()] for tensor in tensors]
        self._guards = _Guards(*tensors, dynamic_dims_sizes=shapes, dynamic_dims_strides=strides)
        self._num_moving = len(moving)
        self._addresses = list(map(Tensor.data_ptr, fixed))

    def holds_for(self, moving: Sequence[Any], fixed: Sequence[Any]) -> bool:
        """Whether these are the same; what is no tensor is not."""
        return (
            len(moving) == self._num_moving
            and len(fixed) == len(self._addresses)
            and self._guards.check(*moving, *fixed)
            and list(map(Tensor.data_ptr, fixed)) == self._addresses
        )


def are_plain(tensors: Iterable[Any]) -> bool:
    """Whether a fingerprint tells everything about these: they are dense, of their own memory, and of no subclass."""
    return all(type(x) in PLAIN_TYPES and x.layout == torch.strided for x in tensors)
