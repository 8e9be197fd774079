"""A mark on an optimizer: the parameters that `frozen: true` rules left out of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.optim import Optimizer

_FROZEN = "_frozen_by_rules"


def mark_frozen_by_rules(optimizer: Optimizer, tensors: Iterable[Tensor]) -> None:
    """Record which parameters the rules of an optimizer's config freeze."""
    setattr(optimizer, _FROZEN, tuple(tensors))


def frozen_by_rules(optimizer: Optimizer) -> Sequence[Tensor]:
    """The parameters that were recorded; none for an optimizer that no factory built."""
    tensors: Sequence[Tensor] = getattr(optimizer, _FROZEN, ())
    return tensors
