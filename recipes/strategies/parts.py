"""What is tried under each strategy: the factory, rules, the monitor and stages, and the same with torch alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory, StagedUnfreeze, configure_optimizers

ALONE, FACTORY, RULES, MONITOR, STAGES = "Lightning alone", "factory", "rules", "monitor", "stages"
PARTS = (FACTORY, RULES, MONITOR, STAGES)
REFERENCES = (FACTORY, RULES, STAGES)
STEPS = 8
THAW = 3
"""The optimizer step before which the backbone thaws."""
LR, DECAY, SLOWER, HIDDEN_LR = 0.01, 0.1, 0.5, 0.02
_RULES = {
    "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0},
    "hidden": {"params": ["backbone.up", "backbone.down"], "kinds": ["matrix"], "optimizer": "muon", "lr": HIDDEN_LR},
    "head": {"params": "head", "lr_scale": SLOWER},
}
_RULES_BY_NAME = {
    "biases": {"params": "*bias", "weight_decay": 0},
    "norms": {"classes": ["LayerNorm"], "weight_decay": 0},
    "head": {"params": "head", "lr_scale": SLOWER},
}
_STAGES = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"step": THAW}, "lr_scale": SLOWER, "allow_unused": True},
}


class Configure:
    """`configure_optimizers` of a module: a factory and a schedule.

    Args:
        rules: of the factory.
    """

    def __init__(self, rules: Mapping[str, Any] | None) -> None:
        self.factory = OptimizerFactory("adamw", lr=LR, weight_decay=DECAY, groups=rules)
        self.schedule = SchedulerFactory("cosine_annealing", T_max=STEPS)

    def __call__(self, module: LightningModule) -> Any:
        return configure_optimizers(module, self.factory, self.schedule)


def configure_torch(module: LightningModule) -> Any:
    """What a user of Lightning writes without this library."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=DECAY)
    return [optimizer], [{"scheduler": CosineAnnealingLR(optimizer, STEPS), "interval": "step"}]


def build_monitor() -> OptimizerMonitor:
    """With everything it can measure."""
    return OptimizerMonitor(1, update_norm=True, cosine=True, per_parameter=True, to_callback_metrics=True)


def build_stages() -> StagedUnfreeze:
    """The head from the start, the backbone later."""
    return StagedUnfreeze(_STAGES)


@dataclass(frozen=True)
class Part:
    """What is tried."""

    name: str
    configure: Callable[[LightningModule], Any]
    build_callbacks: Callable[[], list[Callback]]


def build_parts(*, by_name: bool, is_joint: bool) -> list[Part]:
    """Everything that is tried under a strategy, first what Lightning does without this library.

    Args:
        by_name: whether the rules select by name and class only, and give no other algorithm.
        is_joint: whether rules, monitor and stages are tried in one run.
    """
    with_rules = Configure(_RULES_BY_NAME if by_name else _RULES)
    if is_joint:
        return [
            Part(FACTORY, Configure(None), list),
            Part(STAGES, with_rules, lambda: [build_monitor(), build_stages()]),
        ]
    return [
        Part(ALONE, configure_torch, list),
        Part(FACTORY, Configure(None), list),
        Part(RULES, with_rules, list),
        Part(MONITOR, with_rules, lambda: [build_monitor()]),
        Part(STAGES, with_rules, lambda: [build_stages()]),
    ]


def run_of(part: str, *, is_joint: bool) -> str:
    """The part whose run shows what a part does."""
    return STAGES if is_joint and part != FACTORY else part


def reference_of(run: str) -> str:
    """Which of `REFERENCES` a run is compared with."""
    return {ALONE: FACTORY, MONITOR: RULES}.get(run, run)


def resumed_from(run: str, *, is_joint: bool = False) -> tuple[int, ...]:
    """The steps after which a run is saved and resumed."""
    return (THAW - 1, THAW, THAW + 1) if run == STAGES and not is_joint else (THAW,)
