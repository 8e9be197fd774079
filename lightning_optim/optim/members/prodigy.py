"""Prodigy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..base import AdaptiveOptimizer, ParamGroup
from ..update import Update
from .adam import Adam
from .global_sum import global_sum, sum_each
from .member import Member
from .moments import moments


class Prodigy(Member, name="prodigy"):
    """Adam that estimates its step size by itself (Mishchenko & Defazio, arXiv:2306.06101, algorithm 4).

    `d` grows towards the distance from the initial parameters to the solution, and a step is lr · d times Adam's. All
    param groups share d: the lr of a group is a factor on it, so leave it at 1, and use a schedule from 1 to 0. (The
    authors refuse groups with different lr, pytorch_optimizer uses the first group's lr for all.) A parameter that is
    added later starts with the current d. As in the paper, eps is multiplied by the d of the current step; in the
    authors' code and in optax by the next one. `decoupled` and `corrected` decay are proportional to lr · d. Each step
    reads two sums from the device.

    The moments are those of d · g: in float16 with the default d0 their squares are 0. In bfloat16 the first steps, of
    size d0, are rounded away and d never grows: use `master_weights` with 16-bit parameters.

    Args:
        bias_correction: Adam's bias correction; optax always has it.

    State:
        s: weighted sum of gradients.
        p0: the parameter before its first step.
        r: weighted sum of ⟨g, p0 - p⟩, one number of its dtype.
        d: the current d, a float (float64), the same for all parameters of a step.
        d_max: the largest estimate of d so far, a float.

    Examples:
        >>> from torch import nn
        >>> optim.Prodigy(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["lr"]
        1.0
    """

    def denominator_floor(self, group: ParamGroup) -> float | None:
        return float(group["d0"] * group["eps"])

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        return {"r": (1,)}

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"d": group["d0"], "d_max": group["d0"]}

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        return share_d(self, groups)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **d_coefficients(t, group)}

    @staticmethod
    def update(p, g, m, v, s, p0, r, *, first, unit, b3, w_r, w_s, decay, **adam) -> Update:
        if first:
            p0.copy_(p)
        r.mul_(b3).add_((p0 - p).mul_(g).sum(), alpha=w_r)
        s.mul_(b3).add_(g, alpha=w_s)
        return replace(Adam.update(p, g * unit, m, v, **adam), decay=decay)


def d_coefficients(t: float, group: ParamGroup) -> dict[str, Any]:
    """Adam's coefficients for gradients multiplied by d, and those of the averages that d is estimated from."""
    (b1, b2), d, relative = group["betas"], group["d"], group["d"] / group["d0"]
    unit = d * ((1 - b2**t) ** 0.5 / (1 - b1**t) if group["bias_correction"] else 1.0)
    size = group["lr"] * unit
    b3 = b2**0.5 if group["beta3"] is None else group["beta3"]
    estimate = {"b3": b3, "w_r": relative * size, "w_s": relative * (d if group["safeguard_warmup"] else size)}
    decay = unit if group["weight_decay_mode"] in ("decoupled", "corrected") else 1.0
    adam = {"eps": d * group["eps"], "size": size, "root": 1.0}
    return {**estimate, **adam, "first": t == 1, "unit": d, "decay": decay, "d": d, "d_max": group["d_max"]}


@contextmanager
def share_d(optimizer: AdaptiveOptimizer, groups: Sequence[ParamGroup]) -> Iterator[None]:
    """Give all parameters the same d for the step, and the next d after it."""
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
        by_kernel = optimizer.prefers_kernel(groups[0], stepping[0][1].device)
        following = _estimate_d(states, groups[0], by_kernel=by_kernel)
        for state in states:
            state.update(following)


def _estimate_d(states: Sequence[Mapping[str, Any]], group: ParamGroup, *, by_kernel: bool) -> dict[str, float]:
    d, d_max = states[0]["d"], states[0]["d_max"]
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for state in states:
        by_dtype.setdefault(state["s"].dtype, []).append(state["s"])
    sizes = [sum_each(tensors, absolute=True, by_kernel=by_kernel) for tensors in by_dtype.values()]
    r, below = global_sum([state["r"] for state in states]), global_sum([*chain.from_iterable(sizes)])
    estimate = group["d_coef"] * r / below if below > 0 else 0.0
    if d == group["d0"]:
        d = max(d, estimate)
    d_max = max(d_max, estimate)
    return {"d": min(d_max, d * (group["growth_rate"] or math.inf)), "d_max": d_max}
