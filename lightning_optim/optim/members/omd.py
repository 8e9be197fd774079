"""Optimistic mirror descent."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class OMD(Member, name="omd"):
    """Gradient descent by twice the gradient minus the previous one (Daskalakis et al., arXiv:1711.00141, eq. 4).

    Optimistic mirror descent without constraints: it does not move in circles around the solution of a game such as a
    GAN. The previous gradient is initially 0, so the first step is doubled, as in the paper; in optax it is not.

    Args:
        cautious_update: not supported, as the next step subtracts the whole of this one.

    State:
        previous: the previous gradient.

    Examples:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = optim.OMD([weight], lr=0.5)
        >>> for slope in (1.0, 1.0):
        ...     weight.grad = torch.tensor([slope])
        ...     optimizer.step()
        ...     print(weight.item())
        -1.0
        -1.5
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"size": group["lr"]}

    @staticmethod
    def update(p, g, previous, *, size) -> Update:
        step = g * 2 - previous
        previous.copy_(g)
        return Update(step, size)
