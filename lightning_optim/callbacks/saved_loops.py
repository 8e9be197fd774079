"""Edit the state of Lightning's loops in a loaded checkpoint, so that what was still to run when it was saved runs."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import suppress
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


def count_uncounted_epoch(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit it if it was saved within an epoch that was not counted as begun; see `resumed_epoch.py`.

    It is left as it is where it has no such counts, or none that Lightning has written: Lightning says so itself.
    """
    with suppress(KeyError, TypeError, AttributeError):
        state = _fit_loop(checkpoint)
        totals, current = _counts(state, "epoch_progress")
        is_uncounted = current["ready"] == current["started"] == current["processed"]
        is_uncounted &= _is_within_batch(state["epoch_loop.batch_progress"]["current"])
        # At the end of the epoch, one more is processed than has begun.
        if is_uncounted or current["ready"] == current["started"] == current["processed"] - 1:
            for counts in (totals, current):
                counts.update(ready=counts["ready"] + 1, started=counts["started"] + 1)


def _is_within_batch(counts: Mapping[str, int]) -> bool:
    """Whether a batch has begun that is not completed; one that `on_train_batch_start` skips with -1 never is."""
    has_started = counts["completed"] < counts["started"]
    return has_started or max(counts["started"], counts["processed"]) < counts["ready"]


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
