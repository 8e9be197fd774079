"""What still has to run after the batch at which a checkpoint was written.

Lightning resumes with the next batch: a validation that was due, the hooks of an epoch's end and the steps of
schedulers that wait for a metric never come (2.6). Here its loops are put where the run was.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from .lightning_internals import (
    has_loader_state,
    is_between_batch_and_validation,
    resume_at_epoch_end,
    resume_in_validation,
    validation_is_due,
)

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

VALIDATION, NOTHING = "validation", "nothing"


def remaining_work(trainer: Trainer) -> str | None:
    """What comes after the batch that is being saved: a validation, or nothing but the end of the epoch.

    Returns:
        None where the next batch does.
    """
    if not is_between_batch_and_validation(trainer):
        return None
    if validation_is_due(trainer):
        return VALIDATION
    return NOTHING if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch else None


def resume_at_remaining_work(checkpoint: MutableMapping[str, Any], left: str) -> bool:
    """Change the loops' state in a loaded checkpoint so that what is left of the epoch is run.

    Returns:
        Whether it was changed: a loader without a state begins its epoch anew whatever the loops say.
    """
    if not has_loader_state(checkpoint):
        return False
    if left == NOTHING:
        resume_at_epoch_end(checkpoint)
    else:
        resume_in_validation(checkpoint)
    return True
