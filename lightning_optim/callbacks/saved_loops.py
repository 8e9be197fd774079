"""Edit the state of Lightning's loops in a loaded checkpoint, so that what was still to run when it was saved runs."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any


def resume_in_validation(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit it so that Lightning runs the validation that was due, or had begun, from its first batch."""
    state = _fit_loop(checkpoint)
    _complete_batch(state)
    # As if the run had stopped in the first batch of the validation.
    validation = state["epoch_loop.val_loop.batch_progress"]
    done = validation["total"]["completed"]
    for counts, before in ((validation["total"], done), (validation["current"], 0)):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)


def resume_at_epoch_end(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit it so that Lightning counts the saved batch as done, and runs the hooks at the end of the epoch."""
    state = _fit_loop(checkpoint)
    if _complete_batch(state):
        state["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    for counts in _counts(state, "epoch_progress"):
        counts["processed"] = counts["completed"]


def resume_at_epoch_start(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit it if it was saved while an epoch began: Lightning takes that for the end of its batches (2.6).

    The batches that it counts are those of the epoch before; the new one has none yet.
    """
    state = _fit_loop(checkpoint)
    totals, current = _counts(state, "epoch_progress")
    if current["ready"] != current["started"] + 1:
        return
    for counts in (totals, current):
        counts["ready"] = counts["started"]
    batches = state["epoch_loop.batch_progress"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def _fit_loop(checkpoint: MutableMapping[str, Any]) -> Any:
    return checkpoint["loops"]["fit_loop"]


def _counts(state: Any, progress: str) -> tuple[dict[str, int], dict[str, int]]:
    return state[progress]["total"], state[progress]["current"]


def _complete_batch(state: Any) -> bool:
    """Count the last processed batch as completed; returns whether it was not."""
    was_completed = True
    for counts in _counts(state, "epoch_loop.batch_progress"):
        was_completed &= counts["completed"] == counts["processed"]
        counts["completed"] = counts["processed"]
    return not was_completed
