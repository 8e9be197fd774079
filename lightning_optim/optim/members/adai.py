"""Adai."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch

from ..base import ParamGroup
from ..bucket import real
from ..step_context import StepContext
from ..update import Update
from .global_sum import global_sum
from .member import Member


class Adai(Member, name="adai"):
    """SGD whose momentum is stronger where gradients are small (Xie et al., arXiv:2006.15815, algorithm 2).

    The lr is the same for all; what adapts is β1 = 1 - β0 v̂ / mean(v̂), clipped to [0, 1 - ε].

    The mean is over all parameters that take the step, so one's path depends on the others: parameters whose gradients
    are small beside the rest get the more momentum. It is read from the device once a step. pytorch_optimizer's mean is
    never below ε = 1e-3: where mean squares of gradients are smaller, as in most networks, each of its β1 tends to
    1 - ε.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size, of a momentum that is an average: ten times that of SGD with momentum 0.9.
        betas: β0 >= 0, the strength of the adaptation; β2, decay rate of the squared gradient's average, in [0, 1).
        eps: no β1 is above 1 - ε; in (0, 1].
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (L2), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `bias_correction1` (1 less the product of
    each β1 so far).

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.Adai(nn.Linear(3, 2).parameters(), lr=1.0).defaults["betas"]
        (0.1, 0.99)
    """

    _mean = 0.0

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        return one_mean(self, groups)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b0, b2 = group["betas"]
        # Where all gradients were 0, so is each v.
        scale = b0 / (1 - b2**t) / self._mean if self._mean > 0 else 0.0
        return {"scale": scale, "eps": group["eps"], "lr": group["lr"]}

    @staticmethod
    def update(p, g, m, v, bias1, *, scale, eps, lr) -> Update:
        w1 = (v * scale).clamp_min_(eps).clamp_max_(1.0)  # 1 - β1; v is up to date already
        m.lerp_(g, w1)
        bias1.addcmul_(w1, 1 - bias1)
        return Update(m, lr, over=bias1)


@contextmanager
def one_mean(optimizer: Adai, groups: Sequence[ParamGroup]) -> Iterator[None]:
    """A step before which every v takes in its gradient, so that the mean of all is known."""
    sums, count = [], 0
    for group in groups:
        around, b2 = StepContext.of(group, None), group["betas"][1]
        for bucket in optimizer.buckets(group):
            bucket.run(partial(_advance, around, b2), ("exp_avg_sq",), foreach=group["foreach"])
            for v in (real(state["exp_avg_sq"]) for state in bucket.states):
                sums.append(v.sum(dtype=torch.promote_types(v.dtype, torch.float32)) / (1 - b2**bucket.t))
                count += v.numel()
    optimizer._mean = global_sum(sums) / count if sums else 0.0
    yield


def _advance(around: StepContext, b2: float, p: Any, g: Any, buffers: Sequence[Any]) -> None:
    g = around.gradient(p, g)
    buffers[0].mul_(b2).addcmul_(g, g, value=1 - b2)
