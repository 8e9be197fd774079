"""The end of an epoch, where a checkpoint was written after its last batch and before the rest of it.

Lightning resumes such a run in the next epoch: the validation that was due, the hooks of the epoch's end and the steps
of schedulers that wait for a metric never come (2.6). Here its loops are put where the run was.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

VALIDATION, NOTHING = "validation", "nothing"


def what_is_left(trainer: Trainer) -> str | None:
    """What comes after the last batch of an epoch has been saved: its validation, or nothing; None within an epoch."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    batches: Any = loop.batch_progress.total
    if fetcher is None or not loop.batch_progress.is_last_batch or batches.completed != batches.processed - 1:
        return None
    return VALIDATION if loop._should_check_val_fx(fetcher) else NOTHING


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
