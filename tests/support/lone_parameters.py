"""A reference for optimizers whose rule knows one parameter only: one optimizer for each, never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

BuildAlone = Callable[[nn.Parameter, float], Optimizer]
"""Builds the optimizer of one parameter, with its lr."""


class LoneParameters:
    """Copies of parameters, each stepped by an optimizer of its own: no groups, loads, copies or joins."""

    def __init__(self) -> None:
        self.params: list[nn.Parameter] = []
        self.optimizers: list[Optimizer] = []

    def add(self, param: Tensor, build: BuildAlone, lr: float) -> None:
        """Add a copy of a parameter."""
        self.params.append(nn.Parameter(param.detach().clone()))
        self.optimizers.append(build(self.params[-1], lr))

    def set_lr(self, indices: Iterable[int], lr: float) -> None:
        """Give some parameters another lr."""
        for index in indices:
            self.optimizers[index].param_groups[0]["lr"] = lr

    def step(self, grads: Iterable[Tensor | None]) -> None:
        """Step with these gradients, or not at all if one of them is not finite."""
        grads = list(grads)
        if not all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None):
            return
        for param, optimizer, grad in zip(self.params, self.optimizers, grads, strict=True):
            param.grad = None if grad is None else grad.clone()
            if grad is not None:
                optimizer.step()


def build_alone(cls: Callable[..., Any], **options: Any) -> BuildAlone:
    """Builds an optimizer of a class over one parameter."""
    return lambda param, lr: cls([param], lr=lr, **options)
