"""Adai."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from ..base import ParamGroup
from ..real_view import real
from ..step_context import StepContext
from ..update import Update
from .global_sum import global_sum, sum_each
from .member import Member


class Adai(Member, name="adai"):
    """SGD whose momentum is stronger where gradients are small (Xie et al., arXiv:2006.15815, algorithm 2).

    All coordinates have the same lr; what adapts is the momentum β1 = 1 - β0 v̂ / mean(v̂), clipped to [0, 1 - ε].

    The mean is over all parameters of the step, so a parameter's trajectory depends on the others: parameters with
    smaller gradients than the rest get more momentum. The mean is read from the device once a step. In
    pytorch_optimizer the mean is never below ε = 1e-3: where mean squared gradients are smaller, as in most networks,
    each of its β1 tends to 1 - ε.

    Args:
        lr: learning rate, of a momentum that is an average: use ten times that of SGD with momentum 0.9.

    State:
        bias_correction1: 1 minus the product of each β1 so far.

    Examples:
        >>> from torch import nn
        >>> optim.Adai(nn.Linear(3, 2).parameters(), lr=1.0).defaults["betas"]
        (0.1, 0.99)
    """

    _mean = 0.0

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        return compute_mean(self, groups)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b0, b2 = group["betas"]
        # The mean is 0 where all gradients were 0; then each v is 0 too.
        scale = b0 / (1 - b2**t) / self._mean if self._mean > 0 else 0.0
        return {"scale": scale, "eps": group["eps"], "lr": group["lr"]}

    @staticmethod
    def update(p, g, m, v, bias1, *, scale, eps, lr) -> Update:
        w1 = (v * scale).clamp_min_(eps).clamp_max_(1.0)  # 1 - β1; compute_mean has updated v
        m.lerp_(g, w1)
        bias1.addcmul_(w1, 1 - bias1)
        return Update(m, lr, over=bias1)


@contextmanager
def compute_mean(optimizer: Adai, groups: Sequence[ParamGroup]) -> Iterator[None]:
    """Update every v before the step, so that the mean over all parameters is known in it."""
    sums, count = [], 0
    for group in groups:
        context, b2 = StepContext.from_group(group, None), group["betas"][1]
        for bucket in optimizer.buckets(group):
            optimizer.run_on(bucket, partial(_update_v, context, b2), ("exp_avg_sq",), group)
            vs = [real(state["exp_avg_sq"]) for state in bucket.states]
            by_kernel = optimizer.prefers_kernel(group, vs[0].device)
            sums += [total / (1 - b2**bucket.t) for total in sum_each(vs, by_kernel=by_kernel)]
            count += sum(map(Tensor.numel, vs))
    optimizer._mean = global_sum(sums) / count if sums else 0.0
    yield


def _update_v(context: StepContext, b2: float, p: Any, g: Any, buffers: Sequence[Any]) -> None:
    g = context.transform_gradient(p, g)
    buffers[0].mul_(b2).addcmul_(g, g, value=1 - b2)
