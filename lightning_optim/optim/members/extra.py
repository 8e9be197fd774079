"""Extragradient: ExtraSGD and ExtraAdam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .adam import Adam
from .two_gradients import TwoGradients


class ExtraSGD(TwoGradients, name="extra_sgd"):
    """SGD with the gradient at an extrapolated point (Gidel et al., arXiv:1802.10551, algorithm 2).

    For games such as GANs, where gradient descent moves in circles. A step takes two gradients: the first extrapolates,
    and the second, at that point, is applied from where the parameters were. `step(closure)` therefore calls the
    closure twice and returns its first loss; Lightning's automatic optimization passes such a closure. Without a
    closure, each `step` takes one gradient: the first call extrapolates, the next one steps, as in the paper with a
    fresh batch for each. Between the two, the original parameters are in the state, so checkpoints hold them. As in the
    authors' code, both gradients count as steps and go into the momentum.

    A closure computes the gradients anew, so this does not work with gradient accumulation. A parameter without the
    first gradient takes its step from where it is; without the second, it is restored and takes no step.

    State:
        origin: the parameter before the extrapolation.

    Examples:
        >>> import torch
        >>> x, y = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> optimizer = optim.ExtraSGD([{"params": [x]}, {"params": [y], "maximize": True}], lr=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     (x * y).backward()
        ...     return x.item() * y.item()
        >>> optimizer.step(closure), x.item(), y.item()
        (1.0, 0.25, 1.25)
    """

    origin_buffer = "origin"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        names = ("momentum", "nesterov")
        return {**{name: group[name] for name in names}, "size": group["lr"], **self.advance_phase(group)}

    @staticmethod
    def update(p, g, origin, b=None, *, momentum, nesterov, size, moves_away, moves_back) -> Update:
        d = g if b is None else b.mul_(momentum).add_(g)
        d = g.add(b, alpha=momentum) if nesterov and b is not None else d
        return extragradient(p, origin, Update(d, size), moves_away=moves_away, moves_back=moves_back)


class ExtraAdam(TwoGradients, Adam, name="extra_adam"):
    """`Adam` with the gradient at an extrapolated point (Gidel et al., arXiv:1802.10551, algorithm 4).

    A step takes two gradients, with or without a closure, as in `ExtraSGD`. Both go into the moments and count as
    steps, as in the paper. eps is added as in Adam; the authors' code adds it to the uncorrected root, which is
    `optimized_update`.

    State:
        origin: the parameter before the extrapolation.

    Examples:
        >>> from torch import nn
        >>> optim.ExtraAdam(nn.Linear(3, 2).parameters(), lr=1e-3, betas=(0.5, 0.9)).evaluations
        2
    """

    origin_buffer = "origin"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**super().coefficients(t, group), **self.advance_phase(group)}

    @staticmethod
    def update(p, g, origin, *moments, moves_away, moves_back, **coefficients) -> Update:  # type: ignore[override]
        return extragradient(
            p, origin, Adam.update(p, g, *moments, **coefficients), moves_away=moves_away, moves_back=moves_back
        )


def extragradient(p: Any, origin: Any, step: Update, *, moves_away: bool, moves_back: bool) -> Update:
    """The first step unchanged; the second one starts from where the first one did, if there was one."""
    if moves_away:
        origin.copy_(p)
    return replace(step, start=origin) if moves_back else step
