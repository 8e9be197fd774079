"""Extragradient: ExtraSGD and ExtraAdam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base import Group
from ..update import Update
from .adam import Adam
from .member import Member


class ExtraSGD(Member, name="extra_sgd"):
    """SGD by the gradient ahead, where a first step leads to (Gidel et al., arXiv:1802.10551, algorithm 2).

    For games, as GANs are, which gradient descent circles around. A step takes two gradients: the first extrapolates;
    the second, at that point, is what leaves from where the parameters were. So `step(closure)` calls the closure twice
    and returns the loss before; Lightning's automatic optimization gives it that closure. Without a closure each `step`
    takes one gradient: one extrapolates, the next one steps, as the paper does with a fresh batch for each. In between,
    where the parameters were is in the state, so a checkpoint holds it. As in the authors' code, both gradients count
    as steps and go into the momentum.

    A closure sets the gradients anew, so this does not go with gradient accumulation.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        momentum: factor of the running sum of gradients; 0: none is kept.
        weight_decay: coefficient, or a `WeightDecay`.
        nesterov: with Nesterov's momentum.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`.

    State of each parameter, of its shape and dtype: `origin`, with momentum `momentum_buffer`.

    Raises:
        ConfigError: a hyperparameter is unknown or out of bounds, at the top or in a group.

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

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("origin", *(("momentum_buffer",) if group["momentum"] > 0 else ()))

    def coefficients(self, t: float, group: Group) -> dict[str, Any]:
        names = ("momentum", "nesterov")
        return {**{name: group[name] for name in names}, "size": group["lr"], "ahead": t % 2 == 1}

    @staticmethod
    def update(p, g, origin, b=None, *, momentum, nesterov, size, ahead) -> Update:
        d = g if b is None else b.mul_(momentum).add_(g)
        d = g.add(b, alpha=momentum) if nesterov and b is not None else d
        return extragradient(p, origin, Update(d, size), ahead=ahead)


class ExtraAdam(Adam, name="extra_adam"):
    """`Adam` by the gradient ahead, where a first step leads to (Gidel et al., arXiv:1802.10551, algorithm 4).

    Two gradients a step, with and without a closure, as `ExtraSGD` has it. Both go into the moments and count as steps,
    as in the paper. eps stands where Adam has it; the authors' code adds it to the uncorrected root, which is
    optimized_update.

    State of each parameter, of its shape and dtype: that of `Adam`, and `origin`.

    Example:
        >>> from torch import nn
        >>> optim.ExtraAdam(nn.Linear(3, 2).parameters(), lr=1e-3, betas=(0.5, 0.9)).evaluations
        2
    """

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("origin", *super().buffers(group))

    def coefficients(self, t: float, group: Group) -> dict[str, Any]:
        return {**super().coefficients(t, group), "ahead": t % 2 == 1}

    @staticmethod
    def update(p, g, origin, *moments, ahead, **coefficients) -> Update:  # type: ignore[override]
        return extragradient(p, origin, Adam.update(p, g, *moments, **coefficients), ahead=ahead)


def extragradient(p: Any, origin: Any, step: Update, *, ahead: bool) -> Update:
    """The first step as it is; the second from where the first one began."""
    if ahead:
        origin.copy_(p)
        return step
    return replace(step, start=origin)
