"""STORM."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .two_gradients import TAKEN, TwoGradients


class STORM(TwoGradients, name="storm"):
    """Momentum with variance reduction (Cutkosky & Orabona, arXiv:1905.10018, algorithm 1).

    A step takes two gradients of the same batch: at the current parameters, and at those before the last step.
    `step(closure)` therefore calls the closure twice and returns the loss at the current parameters; Lightning's
    automatic optimization passes such a closure. Without a closure, each `step` takes one gradient: the first call
    moves to the old parameters, the next one must bring the gradient of the same batch there, and steps from the
    current ones. A closure must compute the gradients anew, with the same noise (dropout) at its second call, so this
    does not work with gradient accumulation.

    The sum of squares, and so the lr and a, are per coordinate, as in the authors' code; the paper's algorithm has one
    for all. The authors' code also bounds the estimate, this class does not. Both gradients count as steps; the paper's
    a uses the squares before this step's. A parameter that misses one of the two gradients takes no step.

    State:
        previous: the parameter before the last step.
        gradient: the gradient at the current parameters.
        sum: sum of squared gradients.
        estimate: the variance-reduced momentum.

    Examples:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> optimizer = optim.STORM([weight], lr=1.0, w=4.0)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = weight.square().sum()
        ...     loss.backward()
        ...     return loss.item()
        >>> optimizer.step(closure), round(weight.item(), 4)
        (4.0, 0.5264)
    """

    origin_buffer = "previous"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {key: group[key] for key in ("lr", "w", "c")} | {"first": group[TAKEN] == 0} | self.advance_phase(group)

    @staticmethod
    def update(p, g, previous, grad, total, estimate, *, lr, w, c, first, moves_away, moves_back) -> Update:
        if not moves_away and not moves_back:
            return Update(g, 0.0, decay=0.0)
        if moves_away:
            old = (p if first else previous).clone()
            grad.copy_(g)
            previous.copy_(p)
            return Update(old, 0.0, decay=0.0, start=old)
        if not first:
            estimate.sub_(g).mul_(coordinate_lr(total, lr, w).square().mul_(-c).add_(1.0).clamp_min_(0.0))
        total.addcmul_(grad, grad, value=1.0)
        estimate.add_(grad)
        return Update(coordinate_lr(total, lr, w).mul_(estimate), start=previous)


def coordinate_lr(total: Any, lr: float, w: float) -> Any:
    """The lr η of each coordinate, k / (w + Σ g²)^⅓."""
    return total.add(w).pow_(-1 / 3).mul_(lr)
