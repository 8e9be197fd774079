"""What remains to be run between the batch at which a checkpoint was written and the next one.

Lightning resumes with the next batch: a validation that was due, the hooks at the end of the epoch and the steps of
schedulers that wait for a metric are never run (2.6). Here the saved loops are edited so that they are.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from .lightning_internals import is_between_batch_and_validation, is_last_batch, validation_is_due
from .saved_loops import resume_at_epoch_end, resume_in_validation

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

VALIDATION, EPOCH_END = "validation", "epoch_end"


def find_remaining_work(trainer: Trainer) -> str | None:
    """What follows the batch at which a checkpoint is being saved.

    Returns:
        `VALIDATION`, `EPOCH_END`, or None if the next batch follows.
    """
    if not is_between_batch_and_validation(trainer):
        return None
    if validation_is_due(trainer):
        return VALIDATION
    return EPOCH_END if is_last_batch(trainer) else None


def resume_at_remaining_work(checkpoint: MutableMapping[str, Any], remaining: str) -> None:
    """Edit the loops' state in a loaded checkpoint so that the remaining work is run."""
    if remaining == EPOCH_END:
        resume_at_epoch_end(checkpoint)
    else:
        resume_in_validation(checkpoint)
