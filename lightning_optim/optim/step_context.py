"""What stands around a rule in one param group: the sign of the gradient, its dtype, and the weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .decay import WeightDecay
from .modifiers import cautious, centralized, clipped, each
from .update import Update, restore_start


@dataclass(frozen=True, slots=True)
class StepContext:
    """The steps of the base before and after the rule, for a tensor or a `TensorList`."""

    decay: WeightDecay
    amount: float
    """By which part the parameter itself shrinks."""
    maximize: bool
    dtype: torch.dtype | None
    """That of the state where it is fixed: the rule runs in it, and rounds once, into the parameter."""
    centralizes: bool = False
    clip: float | None = None
    cautious: bool = False

    @classmethod
    def of(cls, group: Mapping[str, Any], dtype: torch.dtype | None) -> StepContext:
        """As a param group says, whose `lr` is a number.

        Raises:
            ConfigError: its weight decay cannot be applied.
        """
        decay = WeightDecay.of(group)
        amount = decay.amount(group["lr"], group["peak_lr"])
        modifiers = group["centralize_gradients"], group["adaptive_clip"], group["cautious_update"]
        return cls(decay, amount, group["maximize"], dtype, *modifiers)

    def gradient(self, p: Any, g: Any) -> Any:
        """The gradient that the rule sees: `g` itself, or new."""
        g = -g if self.maximize else g
        g = g if self.dtype is None else g.to(self.dtype)
        if self.centralizes:
            g = each(centralized, g)
        if self.clip is not None:
            g = each(partial(clipped, part=self.clip), g, p)
        return self.decay.add_to_gradient(g, p)

    def take(self, p: Any, g: Any, updates: tuple[Update, ...]) -> None:
        """Write a rule's step into the parameter, and the decay.

        Args:
            p: written in place.
            g: the gradient that the rule has seen.
            updates: its step.
        """
        if self.cautious and updates:
            updates = cautious(updates, g)
        restore_start(p, updates)
        self.decay.shrink(p, self.amount, updates)
        for update in updates:
            update.take(p)

    def hook(self, step: Callable[[], None], p: Any, g: Any) -> None:
        """The same for a step that writes the parameter itself."""
        if not self.decay.cautious and not self.cautious:
            self.take(p, g, ())
            step()
            return
        before = p.clone()
        step()
        taken = Update(before - p)
        p.copy_(before)
        self.take(p, g, (taken,))
