"""Our own learning-rate curves: the factor on a group's peak lr as a function of `t`, the number of steps done.

They are plain objects for `torch.optim.lr_scheduler.LambdaLR`, which saves their fields in its state dict. A warm-up
starts at 1 / warmup_steps, so that no step is taken with lr 0, and reaches the peak at its last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def warmup(t: int, steps: int) -> float:
    """The warm-up factor at step `t`: (t + 1) / steps, at most 1."""
    return min(1.0, (t + 1) / steps) if steps > 0 else 1.0


def progress(t: int, start: int, end: int) -> float:
    """The fraction of the way from `start` to `end` at step `t`, clamped to [0, 1]."""
    return min(1.0, max(0.0, (t - start) / max(1, end - start)))


@dataclass
class Warmup:
    """Linear warm-up, then constant at the peak."""

    warmup_steps: int

    def __call__(self, t: int) -> float:
        return warmup(t, self.warmup_steps)


@dataclass
class WarmupCosine:
    """Linear warm-up, then half a cosine from the peak to `final_scale` of it (arXiv:1608.03983, eq. 5)."""

    warmup_steps: int
    total_steps: int
    final_scale: float

    def __call__(self, t: int) -> float:
        done = progress(t, self.warmup_steps, self.total_steps)
        cosine = (1 + math.cos(math.pi * done)) / 2
        return warmup(t, self.warmup_steps) * (self.final_scale + (1 - self.final_scale) * cosine)


@dataclass
class WarmupLinear:
    """Linear warm-up, then linear decay from the peak to `final_scale` of it."""

    warmup_steps: int
    total_steps: int
    final_scale: float

    def __call__(self, t: int) -> float:
        done = progress(t, self.warmup_steps, self.total_steps)
        return warmup(t, self.warmup_steps) * (1 - (1 - self.final_scale) * done)


@dataclass
class WarmupStableDecay:
    """Linear warm-up, constant at the peak, then `decay_steps` down to `final_scale` of it (arXiv:2404.06395)."""

    warmup_steps: int
    total_steps: int
    decay_steps: int
    decay_shape: str
    final_scale: float

    def __call__(self, t: int) -> float:
        done = progress(t, self.total_steps - self.decay_steps, self.total_steps)
        remaining = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "sqrt": 1 - math.sqrt(done)}
        return warmup(t, self.warmup_steps) * (self.final_scale + (1 - self.final_scale) * remaining[self.decay_shape])


@dataclass
class Noam:
    """The schedule of arXiv:1706.03762, section 5.3, scaled so that its peak is the group's own lr.

    The paper's peak is `d_model ** -0.5 * warmup_steps ** -0.5`.
    """

    warmup_steps: int

    def __call__(self, t: int) -> float:
        step = t + 1
        return min(step / self.warmup_steps, math.sqrt(self.warmup_steps / step))


@dataclass
class InverseSqrt:
    """Linear warm-up, then peak * sqrt(timescale / (t - warmup_steps + timescale))."""

    warmup_steps: int
    timescale: int

    def __call__(self, t: int) -> float:
        done = max(0, t - self.warmup_steps)
        return warmup(t, self.warmup_steps) * math.sqrt(self.timescale / (done + self.timescale))


@dataclass
class CosineAnnealing:
    """torch's CosineAnnealingLR with a fraction of the peak in place of `eta_min`; it rises again after `T_max`."""

    T_max: int
    final_scale: float

    def __call__(self, t: int) -> float:
        return self.final_scale + (1 - self.final_scale) * (1 + math.cos(math.pi * t / self.T_max)) / 2


@dataclass
class CosineWarmRestarts:
    """torch's CosineAnnealingWarmRestarts with a fraction of the peak in place of `eta_min`."""

    T_0: int
    T_mult: int
    final_scale: float

    def __call__(self, t: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            t %= length
        while t >= length:
            t, length = t - length, length * self.T_mult
        return self.final_scale + (1 - self.final_scale) * (1 + math.cos(math.pi * t / length)) / 2
