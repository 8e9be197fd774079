"""What a rule returns: a step in parts, so that decay, masks and telemetry can read it before it is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .tensor_list import TensorList


@dataclass(frozen=True, slots=True)
class Update:
    """`p <- p - size * direction / over`.

    Attributes:
        direction: has the parameter's shape. It may be the gradient or a buffer itself, so nothing may write into it.
        size: >= 0; a Python number, so that it is rounded only once, with the product.
        over: > 0, has the parameter's shape; None means 1.
        decay: factor on the decay of the parameter itself: a number or a 0-d tensor.
        start: the value that the parameter is set to before decay and step; None: its current value.

    If a rule returns several updates, the first one gives `decay` and `start`.
    """

    __module__ = "lightning_optim.optim"  # where users import it from: pickles outlive a move of this file

    direction: Tensor | TensorList
    size: float = 1.0
    over: Tensor | TensorList | None = None
    decay: float | Tensor | TensorList = 1.0
    start: Tensor | TensorList | None = None

    def apply_to(self, p: Any) -> None:
        """Subtract the step from the parameter, in place."""
        if self.over is None:
            p.add_(self.direction, alpha=-self.size)
        else:
            p.addcdiv_(self.direction, self.over, value=-self.size)

    def to_step(self) -> Any:
        """`size * direction / over`, in new tensors."""
        direction: Any = self.direction
        return direction * self.size if self.over is None else (direction / self.over).mul_(self.size)


def sum_of_steps(updates: Sequence[Update]) -> Any:
    """The sum of several updates, in new tensors."""
    step, *others = (update.to_step() for update in updates)
    for other in others:
        step = step + other
    return step


def restore_start(p: Any, updates: Sequence[Update]) -> None:
    """Set a parameter to the value that the step starts from, if the rule gave one."""
    if updates and updates[0].start is not None:
        p.copy_(updates[0].start)
