"""Which tensors a kernel can take: it goes through memory from a tensor's first element on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..fingerprint import PLAIN_TYPES
from ..real_view import real
from .available import LANGUAGES

DTYPES = {getattr(torch, name): name for name in ("float32", "float64", "bfloat16", "float16")}


def find_usable(columns: Sequence[list[Tensor]]) -> list[int]:
    """The positions of the parameters whose tensors a kernel can take: dense, in one layout, of their own memory.

    Args:
        columns: the parameters, the gradients, and each buffer.
    """
    overlapping = _find_overlapping(columns[0])
    rows = enumerate(zip(*columns, strict=True))
    return [i for i, tensors in rows if i not in overlapping and _have_one_layout(*tensors)]


def _find_overlapping(params: Sequence[Tensor]) -> set[int]:
    """The positions of parameters that share memory; a kernel would step both at the same time."""
    ends = {}
    for i, p in enumerate(params):
        last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
        ends[i] = p.data_ptr() + (last + 1) * p.element_size()
    found: set[int] = set()
    before = None
    for i in sorted(ends, key=lambda i: params[i].data_ptr()):
        if before is not None and params[i].data_ptr() < ends[before]:
            found |= {before, i}
        if before is None or ends[i] > ends[before]:
            before = i
    return found


def _have_one_layout(param: Tensor, grad: Tensor, *buffers: Tensor) -> bool:
    if param.device.type not in LANGUAGES or grad.shape != param.shape:
        return False
    others = grad, *buffers
    for tensor in (param, *others):
        plain = type(tensor) in PLAIN_TYPES and tensor.device == param.device and tensor.layout == torch.strided
        if not plain or tensor.is_conj() or tensor.is_neg() or real(tensor).dtype not in DTYPES:
            return False
    is_contiguous = param.is_contiguous()
    if not is_contiguous and torch.empty_like(param, device="meta").stride() != param.stride():
        return False  # it has gaps, or elements that share memory
    return all(
        tensor.is_contiguous() if is_contiguous or tensor.shape != param.shape else tensor.stride() == param.stride()
        for tensor in others
    )
