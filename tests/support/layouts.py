"""Tensors with the same numbers in other memory layouts."""

from __future__ import annotations

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "reversed", "rotated", "channels_last", "slice", "columns", "offset")
"""Contiguous; dense with the dimensions in another order; every second row or column of a larger tensor, or its end."""


def lay_out(values: Tensor, layout: str) -> Tensor:
    """A tensor with these values in a layout; views are into a larger tensor whose other elements are 7."""
    ndim = values.ndim
    if layout == "channels_last" and ndim == 4:
        return values.clone(memory_format=torch.channels_last)
    if layout in ("reversed", "rotated", "channels_last"):
        order = list(range(ndim))[::-1] if layout == "reversed" else [*range(1, ndim), 0][:ndim]
        inverse = sorted(range(ndim), key=order.__getitem__)
        return values.permute(order).clone(memory_format=torch.contiguous_format).permute(inverse)
    if layout in ("slice", "columns") and ndim:
        dim = 0 if layout == "slice" else ndim - 1
        whole = torch.full([size * (2 if index == dim else 1) for index, size in enumerate(values.shape)], 7.0)
        view = whole.to(values.dtype)[tuple([slice(None, None, 2) if i == dim else slice(None) for i in range(ndim)])]
        return view.copy_(values)
    if layout == "offset":
        whole = torch.full((values.numel() + 3,), 7.0, dtype=values.dtype)
        return whole[3:].view(values.shape).copy_(values)
    return values.clone(memory_format=torch.contiguous_format)


def surroundings(view: Tensor) -> Tensor:
    """The memory that a view is in, without its own elements: all 7 unless something has written there."""
    storage = torch.empty(0, dtype=view.dtype).set_(view.untyped_storage())
    own = torch.zeros(len(storage), dtype=torch.bool)
    own.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    return storage[~own]
