"""STORM."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .two_gradients import TAKEN, TwoGradients


class STORM(TwoGradients, name="storm"):
    """Momentum without the gradients' noise (Cutkosky & Orabona, arXiv:1905.10018, algorithm 1).

    A step takes two gradients of the same batch, here and at the parameters before the last step: so `step(closure)`
    calls the closure twice, and returns the loss here; Lightning's automatic optimization gives it that closure.
    Without a closure each `step` takes one gradient: the first goes back to the old parameters, the next one must bring
    the gradient of the same batch there, and steps from here. A closure sets the gradients anew and draws no other
    noise (dropout) at its second call, so this does not go with gradient accumulation.

    The sum of squares, and so the lr and a, is one for each coordinate, as in the authors' code; in the paper's
    algorithm it is one for all. The bounds that that code puts on the estimate are not here. Both gradients count as
    steps; the paper's a is of the squares before this step's. A parameter that misses one of the two takes no step.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: the paper's k: step size.
        w: what the sum of squares begins with, > 0.
        c: how much of the momentum is forgotten: a = c η², at most 1.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`, and the modifiers (see
            `Adam`) but `skip_nonfinite` and `lookahead`, which do not go with two gradients a step.

    State of each parameter, of its shape and dtype: `previous`, the old parameters; `gradient`, the one here; `sum`,
    of squares; `estimate`. And the numbers `away`, 1 between the two gradients, and `taken`, of steps.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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

    home = "previous"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {key: group[key] for key in ("lr", "w", "c")} | {"first": group[TAKEN] == 0} | self.where(group)

    @staticmethod
    def update(p, g, previous, grad, total, estimate, *, lr, w, c, first, ahead, back) -> Update:
        if not ahead and not back:
            return Update(g, 0.0, decay=0.0)
        if ahead:
            old = (p if first else previous).clone()
            grad.copy_(g)
            previous.copy_(p)
            return Update(old, 0.0, decay=0.0, start=old)
        if not first:
            estimate.sub_(g).mul_(eta(total, lr, w).square().mul_(-c).add_(1.0).clamp_min_(0.0))
        total.addcmul_(grad, grad, value=1.0)
        estimate.add_(grad)
        return Update(eta(total, lr, w).mul_(estimate), start=previous)


def eta(total: Any, lr: float, w: float) -> Any:
    """The lr of each coordinate, k / (w + Σ g²)^⅓."""
    return total.add(w).pow_(-1 / 3).mul_(lr)
