"""Weight decay: a policy around the rule, never applied through `p.grad`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

from ..catalog.decay import DECAY_MODES, GRADIENT_MODES, PARAMETER_MODES, PEAK_LR_MODES, find_cautious_conflict
from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Flag, Number
from .update import Update, sum_of_steps

_COEFFICIENT = Number(default=0.0, low=0)
_CAUTIOUS = Flag(default=False)


@dataclass(frozen=True)
class WeightDecay:
    """What `weight_decay` does, chosen per param group.

    | mode        | with coefficient λ                       | source                                           |
    | ----------- | ---------------------------------------- | ------------------------------------------------ |
    | `l2`        | g ← g + λ p                              | the gradient of λ/2 ‖p‖²                         |
    | `l1`        | g ← g + λ sign(p)                        | the subgradient of λ ‖p‖₁                        |
    | `decoupled` | p ← p (1 - lr λ)                         | arXiv:1711.05101, algorithm 2, as PyTorch has it |
    | `absolute`  | p ← p (1 - λ), nothing while lr = 0      | arXiv:1711.05101, eq. 1                          |
    | `relative`  | p ← p (1 - λ lr / peak_lr)               | arXiv:1711.05101, the multiplier η_t             |
    | `corrected` | p ← p (1 - λ lr² / peak_lr)              | arXiv:2506.02285                                 |
    | `update`    | inside the rule (LAMB, LARS, NovoGrad)   | arXiv:1904.00962, algorithm 2                    |

    `lr` is the current one, warm-up and schedule included; `peak_lr` is the param group's configured lr.

    Args:
        weight_decay: λ >= 0.
        mode: one of the above.
        cautious: for modes that shrink the parameter itself: only where the update does not oppose the shrinking,
            direction · p >= 0 (arXiv:2510.12402, algorithm 1).

    Raises:
        ConfigError: the coefficient is negative, the mode is unknown, or `cautious` has nothing to mask.

    Examples:
        >>> from torch import nn
        >>> optimizer = optim.Adam(nn.Linear(3, 2).parameters(), weight_decay=WeightDecay(0.01, "relative"))
        >>> optimizer.param_groups[0]["weight_decay_mode"]
        'relative'
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    weight_decay: float
    mode: str
    cautious: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_decay", _COEFFICIENT.check(self.weight_decay, "weight_decay"))
        object.__setattr__(self, "cautious", _CAUTIOUS.check(self.cautious, "cautious_decay"))
        if self.mode not in DECAY_MODES:
            raise ConfigError(
                f"weight_decay_mode: there is no {self.mode!r}.{format_choices(str(self.mode), DECAY_MODES)}"
            )
        if self.cautious and (wrong := find_cautious_conflict(self.mode)):
            raise ConfigError(wrong)

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> WeightDecay:
        """The policy of a param group; a schedule may have put a tensor or a numpy number there."""
        return _cached(float(group["weight_decay"]), group["weight_decay_mode"], group["cautious_decay"])

    def keys(self) -> dict[str, Any]:
        """The param group's keys for this policy, which `of` reads: plain data, so that checkpoints can hold it."""
        return {
            "weight_decay": self.weight_decay,
            "weight_decay_mode": self.mode,
            "cautious_decay": self.cautious,
        }

    def add_to_gradient(self, g: Any, p: Any) -> Any:
        """The gradient with L2 or L1 decay: `g` itself or a new tensor of its shape."""
        if self.weight_decay == 0 or self.mode not in GRADIENT_MODES:
            return g
        return g.add(p if self.mode == "l2" else p.sign(), alpha=self.weight_decay)

    def shrinkage(self, lr: float, peak_lr: float) -> float:
        """The fraction of itself that the parameter loses in a step.

        Args:
            lr: the current one.
            peak_lr: the configured one.

        Raises:
            ConfigError: lr is so far above `peak_lr` that the decay would flip the parameter's sign.
        """
        if self.weight_decay == 0 or lr == 0:
            return 0.0
        if self.mode == "decoupled":
            return lr * self.weight_decay
        if self.mode == "absolute":
            return self.weight_decay
        if self.mode not in PEAK_LR_MODES:
            return 0.0
        ratio = lr / peak_lr if peak_lr else float("inf")
        shrinkage = self.weight_decay * (ratio if self.mode == "relative" else lr * ratio)
        if shrinkage > 1:
            raise ConfigError(
                f"weight_decay_mode: {self.mode} with lr {lr:g} over peak_lr {peak_lr:g} would flip the sign of the "
                "parameters. Build the optimizer with the lr of the schedule's peak"
            )
        return shrinkage

    def shrink(self, p: Any, shrinkage: float, updates: tuple[Update, ...]) -> None:
        """Shrink the parameter.

        Args:
            p: written in place.
            shrinkage: what `shrinkage` returned.
            updates: what the rule is about to apply. `cautious` compares with it, and it may scale the decay.
        """
        if (lost := self._loss(p, shrinkage, updates)) is None:
            return
        shrinkage, factor = lost
        if factor is None:
            p.mul_(1 - shrinkage)
        else:
            p.addcmul_(p, factor, value=-shrinkage)

    def loss(self, p: Any, shrinkage: float, updates: tuple[Update, ...]) -> Any:
        """What `shrink` would take from the parameter, in new tensors; None for nothing."""
        if (lost := self._loss(p, shrinkage, updates)) is None:
            return None
        shrinkage, factor = lost
        return p * shrinkage if factor is None else (p * factor).mul_(shrinkage)

    def _loss(self, p: Any, shrinkage: float, updates: tuple[Update, ...]) -> tuple[Any, Any] | None:
        """The fraction that `p` loses, and a tensor on it where it is not the same for all elements."""
        if self.weight_decay == 0 or self.mode not in PARAMETER_MODES:
            return None
        scale = updates[0].decay if updates else 1.0
        factor: Any = None
        if isinstance(scale, Real):
            shrinkage *= scale
        else:
            factor = scale
        if isinstance(shrinkage, float) and shrinkage == 0:  # a kernel is one for any lr
            return None
        if self.cautious:
            mask = _not_opposed(p, updates)
            factor = mask if factor is None else mask.mul_(factor)
        return shrinkage, factor


def _not_opposed(p: Any, updates: tuple[Update, ...]) -> Any:
    """1 where the step has the sign of `p` or either is zero, else 0."""
    one_direction = len(updates) == 1 and updates[0].size > 0
    step: Any = updates[0].direction if one_direction else sum_of_steps(updates)
    # The product of signs, because the product itself may underflow. (1 + s) clamped at 1: 0 for s = -1, else 1.
    return step.sign().mul_(p.sign()).add_(1.0).clamp_max_(1.0)


_cached = lru_cache(maxsize=256, typed=True)(WeightDecay)
"""Every group asks for its own at every step."""
