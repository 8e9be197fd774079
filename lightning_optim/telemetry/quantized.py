"""State that is kept in few bits, made whole to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_CODES = (torch.uint8, torch.int8)
_PARTS = ("qmap", "absmax")
_WHOLE = (Tensor, nn.Parameter, DTensor)


def is_coded(value: Tensor) -> bool:
    """Whether a tensor's elements stand for numbers that they are not."""
    if value.dtype in _CODES:
        return True
    return type(value) not in _WHOLE and is_traceable_wrapper_subclass(value)


def num_bytes(value: Any) -> int:
    """What something in a state takes: a tensor made of others what they do, a number nothing."""
    if isinstance(value, Tensor) and type(value) not in _WHOLE and is_traceable_wrapper_subclass(value):
        parts, _ = value.__tensor_flatten__()
        return sum(num_bytes(getattr(value, part)) for part in parts)
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def decoded(key: str, state: Mapping[str, Any]) -> Tensor | None:
    """The numbers that the tensor under a key stands for; None where nothing here knows its code.

    Known are tensors with a `dequantize` of their own, torchao's among them, and the blockwise code of bitsandbytes:
    `state1` with a table of values, `qmap1`, and a scale for each block of elements, `absmax1` (arXiv:2110.02861).
    """
    value: Tensor = state[key]
    whole: Tensor | None
    if value.dtype not in _CODES:
        knows = type(value).dequantize is not Tensor.dequantize
        whole = value.dequantize() if knows else None
        return whole if type(whole) is Tensor else None
    table, scales = (state.get(key.replace("state", other)) for other in _PARTS)
    if not key.startswith("state") or table is None or scales is None:
        return None
    numbers = table[value.flatten().int()]
    block = 1 << max(0, -(-numbers.numel() // scales.numel()) - 1).bit_length()  # blocks are powers of two
    whole = numbers * scales.repeat_interleave(block)[: numbers.numel()]
    return whole.view_as(value)


def is_part_of_a_code(key: str, state: Mapping[str, Any]) -> bool:
    """Whether the tensor under a key is a table or scale, and no buffer of its own."""
    for part in _PARTS:
        if key.startswith(part):
            coded = state.get(key.replace(part, "state"))
            return isinstance(coded, Tensor) and is_coded(coded)
    return False
