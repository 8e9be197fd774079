"""Extragradient: ExtraSGD and ExtraAdam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base import ParamGroup
from ..update import Update
from .adam import Adam
from .two_gradients import TwoGradients


class ExtraSGD(TwoGradients, name="extra_sgd"):
    """SGD by the gradient ahead, where a first step leads to (Gidel et al., arXiv:1802.10551, algorithm 2).

    For games, as GANs are, which gradient descent circles around. A step takes two gradients: the first extrapolates;
    the second, at that point, is what leaves from where the parameters were. So `step(closure)` calls the closure twice
    and returns the loss before; Lightning's automatic optimization gives it that closure. Without a closure each `step`
    takes one gradient: one extrapolates, the next one steps, as the paper does with a fresh batch for each. In between,
    where the parameters were is in the state, so a checkpoint holds it. As in the authors' code, both gradients count
    as steps and go into the momentum.

    A closure sets the gradients anew, so this does not go with gradient accumulation. A parameter without the first
    gradient takes its step from where it is; without the second, it goes back and takes none.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        momentum: factor of the running sum of gradients; 0: none is kept.
        weight_decay: coefficient, or a `WeightDecay`.
        nesterov: with Nesterov's momentum.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`, and the modifiers (see
            `Adam`) but `skip_nonfinite` and `lookahead`, which do not go with two gradients a step.

    State of each parameter, of its shape and dtype: `origin`, with momentum `momentum_buffer`; and the numbers `away`,
    1 between the two gradients, and `taken`, of steps.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
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

    home = "origin"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        names = ("momentum", "nesterov")
        return {**{name: group[name] for name in names}, "size": group["lr"], **self.where(group)}

    @staticmethod
    def update(p, g, origin, b=None, *, momentum, nesterov, size, ahead, back) -> Update:
        d = g if b is None else b.mul_(momentum).add_(g)
        d = g.add(b, alpha=momentum) if nesterov and b is not None else d
        return extragradient(p, origin, Update(d, size), ahead=ahead, back=back)


class ExtraAdam(TwoGradients, Adam, name="extra_adam"):
    """`Adam` by the gradient ahead, where a first step leads to (Gidel et al., arXiv:1802.10551, algorithm 4).

    Two gradients a step, with and without a closure, as `ExtraSGD` has it. Both go into the moments and count as steps,
    as in the paper. eps stands where Adam has it; the authors' code adds it to the uncorrected root, which is
    optimized_update.

    Args and options are `Adam`'s, but `skip_nonfinite` and `lookahead`, which do not go with two gradients a step.

    State of each parameter, of its shape and dtype: that of `Adam`, and `origin`, `away` and `taken` as in `ExtraSGD`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.ExtraAdam(nn.Linear(3, 2).parameters(), lr=1e-3, betas=(0.5, 0.9)).evaluations
        2
    """

    home = "origin"

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**super().coefficients(t, group), **self.where(group)}

    @staticmethod
    def update(p, g, origin, *moments, ahead, back, **coefficients) -> Update:  # type: ignore[override]
        return extragradient(p, origin, Adam.update(p, g, *moments, **coefficients), ahead=ahead, back=back)


def extragradient(p: Any, origin: Any, step: Update, *, ahead: bool, back: bool) -> Update:
    """The first step as it is; the second from where the first one began, if there was one."""
    if ahead:
        origin.copy_(p)
    return replace(step, start=origin) if back else step
