"""The clock of a staged run, and the stages that the run is too short for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ..core.errors import format_names
from ..stages.stages import Stage
from ..stages.triggers import Clock
from .run_fraction import check_run_ends

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def start_clock(trainer: Trainer, module: LightningModule, stages: Sequence[Stage]) -> Clock:
    """A clock at the start of a run; logs which stages the run ends before.

    Raises:
        ConfigError: a stage needs to know how much of the run is done, and the run has no end.
    """

    def evaluate(function: Callable[..., Any]) -> bool:
        decision = bool(function(trainer, module))
        return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))

    clock = Clock(evaluate=evaluate)
    stage = next((stage for stage in stages if stage.trigger.needs_length), None)
    if stage is not None:
        hint = f"Type another trigger, for example {stage.key}.at: {{step: 500}}"
        check_run_ends(trainer, stage.trigger.length_key, hint)
        clock.fraction = 0.0
    # Under manual optimization `max_steps` limits the steps of all optimizers together.
    limits = (trainer.max_epochs, trainer.max_steps if module.automatic_optimization else None)
    epochs, steps = (math.inf if limit in (None, -1) else limit for limit in limits)
    if unreachable := [stage.name for stage in stages if not stage.trigger.is_reachable(epochs, steps)]:
        rank_zero_info(f"StagedUnfreeze: this run ends before {format_names(unreachable)} can thaw")
    return clock
