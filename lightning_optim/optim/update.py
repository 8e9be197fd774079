"""What a rule returns: the step to take, in parts, so that what stands around the rule can look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .tensor_list import TensorList


@dataclass(frozen=True, slots=True)
class Update:
    """`p <- p - size * direction / over`.

    Attributes:
        direction: of the parameter's shape; it may be the gradient or a buffer itself, so nobody writes into it.
        size: >= 0; a Python number, so that it is rounded once, with the product.
        over: > 0, of the parameter's shape; None: 1.
        decay: the part that is left of a decay of the parameter itself: a number, or a tensor of no dimension.
        start: where the parameter is put before decay and step; None: where it is.

    Where there are several, the first one says what `decay` and `start` are.
    """

    __module__ = "lightning_optim.optim"  # where users import it from: pickles outlive a move of this file

    direction: Tensor | TensorList
    size: float = 1.0
    over: Tensor | TensorList | None = None
    decay: float | Tensor | TensorList = 1.0
    start: Tensor | TensorList | None = None

    def take(self, p: Any) -> None:
        """Write it into the parameter."""
        if self.over is None:
            p.add_(self.direction, alpha=-self.size)
        else:
            p.addcdiv_(self.direction, self.over, value=-self.size)

    def whole(self) -> Any:
        """`size * direction / over`, as new tensors."""
        direction: Any = self.direction
        return direction * self.size if self.over is None else (direction / self.over).mul_(self.size)


def restore_start(p: Any, updates: tuple[Update, ...]) -> None:
    """Put a parameter where the step starts from."""
    if updates and updates[0].start is not None:
        p.copy_(updates[0].start)
