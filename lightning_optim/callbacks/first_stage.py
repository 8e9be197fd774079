"""What a staged run trains first, for the steps that Lightning's tuners take before the run begins."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..stages.freezing import EvalModeLock, set_trainable
from ..stages.stages import Stage
from .staged_optimizers import split_optimizers
from .strategies import rebuild_ddp_reducer

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


@contextmanager
def first_stages_only(
    trainer: Trainer, module: LightningModule, stages: Sequence[Stage], lock: EvalModeLock
) -> Iterator[dict[str, float]]:
    """Freeze the stages that wait, and leave only the others in the optimizers, which must be built anew afterwards.

    Args:
        trainer: with optimizers built over the whole module.
        module: all claimed parameters are trainable.
        stages: with the parameters they claim.
        lock: keeps layers of the frozen part in evaluation mode.

    Yields:
        The `lr_scale` of each param group that is left, by name.
    """
    optimizers = split_optimizers(trainer, module, stages)
    waiting = [stage for stage in stages if not stage.trigger.from_start]
    frozen = [tensor for stage in waiting for staged in optimizers for tensor in staged.tensors(stage.name)]
    for staged in optimizers:
        staged.activate_stages([stage.name for stage in stages if stage.trigger.from_start])
    set_trainable(frozen, False)
    lock.lock(module, frozenset().union(*(stage.params for stage in waiting)))
    rebuild_ddp_reducer(trainer)
    try:
        with warnings.catch_warnings():
            # Intended, and only a tuner starts the loop with frozen layers in that mode.
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode at the start of training")
            yield {group.name: group.lr_scale for staged in optimizers for group in staged.plan.groups}
    finally:
        lock.release()
        set_trainable(frozen, True)
        rebuild_ddp_reducer(trainer)
