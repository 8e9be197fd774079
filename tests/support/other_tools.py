"""The callbacks that are compared, each configured for the same two plans.

Plan one: the backbone thaws at epoch 1. Plan two: its last layer thaws at epoch 2, the rest at epoch 4. In both, thawed
layers train at a tenth of the head's lr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint

from lightning_optim import StagedUnfreeze

LR = 0.01
TENTH = LR * 0.1

HEAD = {"head": {"params": "head"}}
BACKBONE = {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}
STAGES = {
    **HEAD,
    "top": {"params": "backbone.3", "at": {"epoch": 2}, "lr_scale": 0.1},
    "stem": {"params": "backbone", "at": {"epoch": 4}, "lr_scale": 0.1},
}
PHASES = {
    0: {"params": [r"head\."], "max_transition_epoch": 2},
    1: {"params": [r"backbone\.3\."], "max_transition_epoch": 4, "lr": TENTH},
    2: {"params": [r"backbone\.[01]\."], "max_transition_epoch": 6, "lr": TENTH},
}


class Tool(NamedTuple):
    """How to build the callback for a run, and the class of checkpoint callback that it works with."""

    make_callback: Callable[[], Callback]
    checkpoint_class: type[ModelCheckpoint] = ModelCheckpoint


def lightning(epoch: int = 1, growth: float = 1.0, **arguments: Any) -> Tool:
    """Lightning's callback on plan one. It multiplies the backbone's lr by `growth` in each later epoch."""
    options = {"lambda_func": lambda _: growth, "backbone_initial_ratio_lr": 0.1, "should_align": False, **arguments}
    return Tool(lambda: BackboneFinetuning(epoch, **options))


def finetuning_scheduler(phases: Mapping[int, Any] = PHASES, **arguments: Any) -> Tool:
    """finetuning-scheduler on plan two, by epochs only and without restoring the best checkpoint, like the others."""
    import finetuning_scheduler as fts

    def make_callback() -> Callback:
        # It writes into the schedule, and sets the level of Lightning's logger, to INFO by default.
        schedule = {number: dict(phase) for number, phase in phases.items()}
        options = {"epoch_transitions_only": True, "restore_best": False, "logging_level": 40}
        return fts.FinetuningScheduler(schedule, **options, **arguments)

    return Tool(make_callback, fts.FTSCheckpoint)


def ours(epoch: int = 1) -> Tool:
    """StagedUnfreeze on plan one."""
    return ours_with_stages({**HEAD, "backbone": {**BACKBONE, "at": {"epoch": epoch}}})


def ours_in_phases() -> Tool:
    """StagedUnfreeze on plan two."""
    return ours_with_stages(STAGES)


def ours_with_stages(stages: Mapping[str, Any]) -> Tool:
    return Tool(lambda: StagedUnfreeze(stages))
