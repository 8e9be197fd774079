"""What comes after a batch, where a checkpoint was written between the two.

Lightning resumes such a run with the next batch: a validation that was due, the hooks of an epoch's end and the steps
of schedulers that wait for a metric never come (2.6). Here its loops are put where the run was.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

VALIDATION, NOTHING = "validation", "nothing"


def what_is_left(trainer: Trainer) -> str | None:
    """What comes after the batch that is being saved: a validation, or nothing but the end of the epoch.

    Returns:
        None where the next batch does.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    batches: Any = loop.batch_progress.total
    if fetcher is None or batches.completed != batches.processed - 1:
        return None
    if loop._should_check_val_fx(fetcher):
        return VALIDATION
    return NOTHING if loop.batch_progress.is_last_batch else None


def go_to_the_rest(checkpoint: MutableMapping[str, Any], left: str) -> bool:
    """Change the loops' state in a loaded checkpoint so that what is left of the epoch is run.

    Returns:
        Whether it was changed: a loader without a state begins its epoch anew whatever the loops say.
    """
    state = checkpoint["loops"]["fit_loop"]
    if not state["state_dict"].get("combined_loader"):
        return False
    progress = state["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["completed"] = counts["processed"]
    if left == NOTHING:
        state["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
        return True
    # As though stopped in the first batch of the validation.
    validation = state["epoch_loop.val_loop.batch_progress"]
    done = validation["total"]["completed"]
    for counts, before in ((validation["total"], done), (validation["current"], 0)):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)
    return True


def skip_batches(trainer: Trainer) -> None:
    """Let the epoch that was resumed end without another batch."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def skip_no_more(trainer: Trainer) -> None:
    """Once it has ended: a loop that ran no batch has not noticed that it is no longer the resumed one."""
    trainer.fit_loop.epoch_loop.restarting = False
