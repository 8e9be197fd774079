"""What happens around a rule in one param group: gradient transforms before it; decay, mask and write after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .decay import WeightDecay
from .modifiers import centralize, clip_by_param_norm, map_tensors, mask_disagreeing
from .schedule_free import AverageStep, step_average
from .update import Update, restore_start


@dataclass(frozen=True, slots=True)
class StepContext:
    """The steps of the base class before and after a rule, for a tensor or a `TensorList`."""

    decay: WeightDecay
    shrinkage: float
    """The fraction of itself that the parameter loses to weight decay in this step."""
    maximize: bool
    dtype: torch.dtype | None
    """The common dtype of the buffers, if declared: the rule runs in it and rounds once, into the parameter."""
    centralize: bool = False
    clip_ratio: float | None = None
    cautious: bool = False
    average: AverageStep | None = None
    """With `schedule_free`: the rule's updates are those of z, and the parameter is y."""

    @classmethod
    def from_group(cls, group: Mapping[str, Any], dtype: torch.dtype | None) -> StepContext:
        """The context that a param group asks for; its `lr` must be a number.

        Raises:
            ConfigError: its weight decay cannot be applied.
        """
        decay = WeightDecay.of(group)
        shrinkage = decay.shrinkage(group["lr"], group["peak_lr"])
        modifiers = group["centralize_gradients"], group["adaptive_clip"], group["cautious_update"]
        return cls(decay, shrinkage, group["maximize"], dtype, *modifiers)

    def transform_gradient(self, p: Any, g: Any) -> Any:
        """The gradient that the rule gets: `g` itself or new tensors, never `g` modified."""
        g = -g if self.maximize else g
        g = g if self.dtype is None else g.to(self.dtype)
        if self.centralize:
            g = map_tensors(centralize, g)
        if self.clip_ratio is not None:
            g = map_tensors(partial(clip_by_param_norm, ratio=self.clip_ratio), g, p)
        return self.decay.add_to_gradient(g, p)

    def apply(self, p: Any, g: Any, updates: tuple[Update, ...], z: Any = None) -> None:
        """Apply the decay and a rule's updates to the parameter.

        Args:
            p: written in place.
            g: the gradient that the rule got.
            updates: what the rule returned.
            z: with `average`, what they step; written in place.
        """
        if self.cautious and updates:
            updates = mask_disagreeing(updates, g)
        if self.average is not None:
            step_average(p, z, self.average, self.decay.loss(p, self.shrinkage, updates), updates)
            return
        restore_start(p, updates)
        self.decay.shrink(p, self.shrinkage, updates)
        for update in updates:
            update.apply_to(p)

    def apply_hook(self, step: Callable[[], None], p: Any, g: Any, z: Any = None) -> None:
        """As `apply`, for a `step` that writes the parameter itself."""
        if not self.decay.cautious and not self.cautious and self.average is None:
            self.apply(p, g, ())
            step()
            return
        # Masks and averages need the step before it is applied: take it on the parameter, read it off, undo it.
        before = p.clone()
        step()
        taken = Update(before - p)
        p.copy_(before)
        self.apply(p, g, (taken,), z)
