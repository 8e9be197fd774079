"""Optimistic mirror descent."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class OMD(Member, name="omd"):
    """Gradient descent by twice the gradient less the one before (Daskalakis et al., arXiv:1711.00141, eq. 4).

    Optimistic mirror descent without constraints: it does not circle around the solution of a game, as of a GAN. Before
    the first gradient there was none, so that step is doubled, as in the paper; optax takes the first one once.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`, and the modifiers (see
            `Adam`) but `cautious_update`: the next step takes back what was never taken.

    State of each parameter, of its shape and dtype: `previous`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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
