"""SGD with momentum, as `torch.optim.SGD` has it, in the two forms in which a user can write an optimizer."""

from __future__ import annotations

import torch

from lightning_optim import optim


class Momentum(optim.AdaptiveOptimizer):
    """With the two hooks."""

    def __init__(self, params, lr=0.01, momentum=0.9, weight_decay=0.0, **options):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, **options)

    def init_state(self, state, group, param):
        state["momentum_buffer"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        step = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
        param.add_(step, alpha=-group["lr"])


class DeclaredMomentum(Momentum):
    """In the declared form."""

    init_state = optim.AdaptiveOptimizer.init_state
    step_param = optim.AdaptiveOptimizer.step_param

    def buffers(self, group):
        return ("momentum_buffer",)

    def coefficients(self, t, group):
        return {"mu": group["momentum"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m, *, mu, size):
        return optim.Update(m.mul_(mu).add_(g), size)


BOTH_FORMS = [Momentum, DeclaredMomentum]
