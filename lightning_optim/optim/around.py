"""What stands around a rule in one param group: the sign of the gradient, its dtype, and the weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .decay import WeightDecay
from .update import Update, restart


@dataclass(frozen=True, slots=True)
class Around:
    """The steps of the base before and after the rule, for a tensor or a `TensorList`."""

    decay: WeightDecay
    amount: float
    """By which part the parameter itself shrinks."""
    maximize: bool
    dtype: torch.dtype | None
    """That of the state where it is fixed: the rule runs in it, and rounds once, into the parameter."""

    @classmethod
    def of(cls, group: Mapping[str, Any], dtype: torch.dtype | None) -> Around:
        """As a param group says, whose `lr` is a number.

        Raises:
            ConfigError: its weight decay cannot be applied.
        """
        decay = WeightDecay.of(group)
        return cls(decay, decay.amount(group["lr"], group["peak_lr"]), group["maximize"], dtype)

    def gradient(self, p: Any, g: Any) -> Any:
        """The gradient that the rule sees: `g` itself, or new."""
        g = -g if self.maximize else g
        return self.decay.add_to_gradient(g if self.dtype is None else g.to(self.dtype), p)

    def take(self, p: Any, updates: tuple[Update, ...]) -> None:
        """Write a rule's step into the parameter, and the decay."""
        restart(p, updates)
        self.decay.shrink(p, self.amount, updates)
        for update in updates:
            update.take(p)

    def hook(self, step: Callable[[], None], p: Any) -> None:
        """The same for a step that writes the parameter itself."""
        if not self.decay.cautious:
            self.take(p, ())
            step()
            return
        before = p.clone()
        step()
        taken = Update(before - p)
        p.copy_(before)
        self.take(p, (taken,))
