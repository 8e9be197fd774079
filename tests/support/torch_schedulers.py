"""Every scheduler class of torch, and a third party's, each built by hand over an optimizer with two param groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import lr_scheduler


class ThirdPartyScheduler(lr_scheduler.LRScheduler):
    """Keeps a list with one entry per group, and writes a key of its own into each group."""

    def __init__(self, optimizer: Any) -> None:
        self.factors = [1.0 for _ in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["a_key_of_its_own"] = 0.5
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        self.factors = [factor * 0.9 for factor in self.factors]
        return [base * factor for base, factor in zip(self.base_lrs, self.factors, strict=True)]


def sequential(optimizer: Any) -> Any:
    first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    second = lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    return lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[5])


def chained(optimizer: Any) -> Any:
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 4), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return lr_scheduler.ChainedScheduler(parts, optimizer)


HAND_MADE_SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.95**t),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.95),
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multi_step": lambda o: lr_scheduler.MultiStepLR(o, [5, 9]),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.1, 10),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=12),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "sequential": sequential,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "chained": chained,
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 0.1, step_size_up=4),
    "warm_restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=5),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.05], total_steps=25),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 20, 2.0),
    "foreign": ThirdPartyScheduler,
}
