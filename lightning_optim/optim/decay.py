"""Weight decay: a policy around the rule, never through `p.grad`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..catalog.decay import DECAYS, IN_PROPORTION, TO_GRADIENT, nothing_to_mask
from ..core.errors import ConfigError, choices
from ..core.hyperparameters import Number
from .update import Update


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

    `lr` is the one in force, warm-up and schedule included; `peak_lr` is the param group's, its configured lr.

    Args:
        weight_decay: λ >= 0.
        mode: one of the above.
        cautious: with a mode that shrinks the parameter itself: only where the update does not oppose the shrinking,
            direction · p >= 0 (arXiv:2510.12402, algorithm 1).

    Raises:
        ConfigError: the coefficient is negative, the mode is unknown, or `cautious` has nothing to mask.

    Example:
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
        Number(default=0.0, low=0).check(self.weight_decay, "weight_decay")
        if self.mode not in DECAYS:
            raise ConfigError(f"weight_decay_mode: there is no {self.mode!r}.{choices(str(self.mode), DECAYS)}")
        if self.cautious and (wrong := nothing_to_mask(self.mode)):
            raise ConfigError(wrong)

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> WeightDecay:
        """The policy that a param group carries; a schedule may have put a tensor or a numpy number there."""
        return cls(float(group["weight_decay"]), group["weight_decay_mode"], group["cautious_decay"])

    def keys(self) -> dict[str, Any]:
        """The param group's keys that carry it, as `of` reads them: plain data, so that checkpoints hold it."""
        return {
            "weight_decay": self.weight_decay,
            "weight_decay_mode": self.mode,
            "cautious_decay": self.cautious,
        }

    def add_to_gradient(self, g: Any, p: Any) -> Any:
        """The gradient that the rule sees: `g` itself or a new tensor of its shape."""
        if self.weight_decay == 0 or self.mode not in TO_GRADIENT:
            return g
        return g.add(p if self.mode == "l2" else p.sign(), alpha=self.weight_decay)

    def amount(self, lr: float, peak_lr: float) -> float:
        """By which part the parameter itself shrinks in a step.

        Args:
            lr: in force.
            peak_lr: the configured one.

        Raises:
            ConfigError: lr is so far above `peak_lr` that the decay would turn the parameter's sign.
        """
        if self.weight_decay == 0 or lr == 0:
            return 0.0
        if self.mode == "decoupled":
            return lr * self.weight_decay
        if self.mode == "absolute":
            return self.weight_decay
        if self.mode not in IN_PROPORTION:
            return 0.0
        ratio = lr / peak_lr if peak_lr else float("inf")
        amount = self.weight_decay * (ratio if self.mode == "relative" else lr * ratio)
        if amount > 1:
            raise ConfigError(
                f"weight_decay_mode: {self.mode} with lr {lr:g} over peak_lr {peak_lr:g} would turn the sign of the "
                "parameters. Build the optimizer with the lr of the schedule's peak"
            )
        return amount

    def shrink(self, p: Any, amount: float, updates: tuple[Update, ...]) -> None:
        """Shrink the parameter by `amount` of itself.

        Args:
            p: written in place.
            amount: what `amount` gave.
            updates: what the rule is about to do; read for `cautious`, and for what is left of the decay.
        """
        left = updates[0].decay if updates else 1.0
        part: Any = None
        if isinstance(left, float):
            amount *= left
        else:
            part = left
        if amount == 0:
            return
        if self.cautious:
            mask = _not_opposed(p, updates)
            part = mask if part is None else mask.mul_(part)
        if part is None:
            p.mul_(1 - amount)
        else:
            p.addcmul_(p, part, value=-amount)


def _not_opposed(p: Any, updates: tuple[Update, ...]) -> Any:
    """1 where the step's sign is that of `p` or either is zero, else 0."""
    plain = len(updates) == 1 and updates[0].size > 0
    steps: list[Any] = [update.direction if plain else update.whole() for update in updates]
    step = steps[0]
    for other in steps[1:]:
        step = step + other
    # The product of signs, as the product itself may underflow. (1 + s) clamped at 1: 0 for s = -1, else 1.
    return step.sign().mul_(p.sign()).add_(1.0).clamp_max_(1.0)
