"""Quantized optimizer state: recognizing it, and the numbers that it represents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_CODE_DTYPES = (torch.uint8, torch.int8)
_TABLES = ("qmap", "absmax")
_UNQUANTIZED_TYPES = (Tensor, nn.Parameter, DTensor)


def is_quantized(value: Tensor) -> bool:
    """Whether a tensor's elements are codes for other numbers."""
    return value.dtype in _CODE_DTYPES or _is_wrapper(value)


def dequantize(key: str, state: Mapping[str, Any]) -> Tensor | None:
    """The numbers that the quantized tensor under a key represents; None where the format is unknown.

    Known are tensor subclasses with their own `dequantize`, such as torchao's, and the blockwise format of
    bitsandbytes: `state1` with a table of values, `qmap1`, and a scale for each block of elements, `absmax1`
    (arXiv:2110.02861).
    """
    value: Tensor = state[key]
    numbers: Tensor | None
    if value.dtype not in _CODE_DTYPES:
        overrides = type(value).dequantize is not Tensor.dequantize
        numbers = value.dequantize() if overrides else None
        return numbers if type(numbers) is Tensor else None
    table, scales = (state.get(key.replace("state", name)) for name in _TABLES)
    if not key.startswith("state") or table is None or scales is None:
        return None
    numbers = table[value.flatten().int()]
    # The length of a block is a power of two.
    block_length = 1 << max(0, -(-numbers.numel() // scales.numel()) - 1).bit_length()
    numbers = numbers * scales.repeat_interleave(block_length)[: numbers.numel()]
    return numbers.view_as(value)


def is_quantization_table(key: str, state: Mapping[str, Any]) -> bool:
    """Whether the tensor under a key is the value table or the scales of a quantized one, and not a buffer itself."""
    for name in _TABLES:
        if key.startswith(name):
            codes = state.get(key.replace(name, "state"))
            return isinstance(codes, Tensor) and is_quantized(codes)
    return False


def num_bytes(value: Any) -> int:
    """The memory of a value in a state: of a wrapper subclass, that of its inner tensors; 0 for what is no tensor."""
    if not isinstance(value, Tensor):
        return 0
    if _is_wrapper(value):
        inner_names, _ = value.__tensor_flatten__()  # type: ignore[attr-defined]
        return sum(num_bytes(getattr(value, name)) for name in inner_names)
    return value.numel() * value.element_size()


def _is_wrapper(value: Tensor) -> bool:
    return type(value) not in _UNQUANTIZED_TYPES and is_traceable_wrapper_subclass(value)
