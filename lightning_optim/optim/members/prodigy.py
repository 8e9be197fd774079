"""Prodigy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..base import AdaptiveOptimizer, ParamGroup
from ..update import Update
from .adam import Adam
from .global_sum import global_sum
from .member import Member
from .moments import moments


class Prodigy(Member, name="prodigy"):
    """Adam that finds its lr by itself (Mishchenko & Defazio, arXiv:2306.06101, algorithm 4).

    `d` grows towards the distance from the start to the solution; a step is lr d times Adam's. d is one for all groups:
    a group's lr is a factor on it, so leave it at 1, and give a schedule from 1 to 0 (the authors refuse groups of
    different lr, pytorch_optimizer takes the first one's for all). A parameter that joins late gets the d there is, so
    it does not start as if new. As in the paper, eps is multiplied by the d that the step is made with, in the authors'
    code and in optax by the next one. `decoupled` and `corrected` decay are in proportion
    to lr d. Each step reads two sums from the device.

    The moments are of d g: with float16 and the default d0 their squares are 0. In bfloat16 the first steps, of the
    size d0, round to none, and d never grows: with 16-bit parameters use `master_weights`.

    Args and options are `AdamW`'s, less amsgrad and optimized_update, and:

    Args:
        beta3: decay rate of what d is estimated by; null: √β2.
        d0: the first d: smaller than any that is right.
        d_coef: factor of the estimate: what to change, rather than lr.
        growth_rate: by which factor d may grow in a step, but the first that it grows in; null: any.
        bias_correction: Adam's; optax has it always.
        safeguard_warmup: leave the lr out of the estimate's denominator, for where a warm-up makes d too large.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`, `s`, `p0`; `r`, one number of its dtype;
    and in float64 the numbers `d` and `d_max`, the same for all that take a step.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.Prodigy(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["lr"]
        1.0
    """

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        return {"r": (1,)}

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"d": group["d0"], "d_max": group["d0"]}

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        return one_d(self, groups)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **in_units_of_d(t, group)}

    @staticmethod
    def update(p, g, m, v, s, p0, r, *, first, unit, b3, of_r, of_s, decay, **adam) -> Update:
        if first:
            p0.copy_(p)
        r.mul_(b3).add_((p0 - p).mul_(g).sum(), alpha=of_r)
        s.mul_(b3).add_(g, alpha=of_s)
        return replace(Adam.update(p, g * unit, m, v, **adam), decay=decay)


def in_units_of_d(t: float, group: ParamGroup) -> dict[str, Any]:
    """Adam's coefficients for gradients multiplied by d, and the weights of what d is estimated by."""
    (b1, b2), d, relative = group["betas"], group["d"], group["d"] / group["d0"]
    unit = d * ((1 - b2**t) ** 0.5 / (1 - b1**t) if group["bias_correction"] else 1.0)
    size = group["lr"] * unit
    b3 = b2**0.5 if group["beta3"] is None else group["beta3"]
    estimate = {"b3": b3, "of_r": relative * size, "of_s": relative * (d if group["safeguard_warmup"] else size)}
    decay = unit if group["weight_decay_mode"] in ("decoupled", "corrected") else 1.0
    adam = {"eps": d * group["eps"], "size": size, "root": 1.0}
    return {**estimate, **adam, "first": t == 1, "unit": d, "decay": decay, "d": d, "d_max": group["d_max"]}


@contextmanager
def one_d(optimizer: AdaptiveOptimizer, groups: Sequence[ParamGroup]) -> Iterator[None]:
    """A step in which all parameters have the d there is, and after which they have the next one."""
    stepping = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
    every = [optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]]
    known = [state for state in every if "d" in state]
    states = [optimizer.ensure_state(group, param) for group, param in stepping]
    if known:
        latest = max(known, key=lambda state: (state["d_max"], state["d"]))
        for state in states:
            state.update(d=latest["d"], d_max=latest["d_max"])
    yield
    if states:
        following = _next(states, groups[0])
        for state in states:
            state.update(following)


def _next(states: Sequence[Mapping[str, Any]], group: ParamGroup) -> dict[str, float]:
    d, d_max = states[0]["d"], states[0]["d_max"]
    r, below = (global_sum(tensors) for tensors in ([s["r"] for s in states], [s["s"].abs().sum() for s in states]))
    estimate = group["d_coef"] * r / below if below > 0 else 0.0
    if d == group["d0"]:
        d = max(d, estimate)
    d_max = max(d_max, estimate)
    return {"d": min(d_max, d * (group["growth_rate"] or math.inf)), "d_max": d_max}
