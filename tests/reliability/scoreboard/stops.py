"""F4, F5, F17: SIGTERM, Ctrl-C and exceptions in each hook; a kill in a validation of averaged weights."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_optim import OptimizerMonitor
from tests.reliability.scoreboard.fits import MECHANISMS, find_newest, reference, resume_and_compare, train
from tests.reliability.scoreboard.kills import kill, train_and_die
from tests.reliability.scoreboard.outcome import Cell, Outcome, Tier, Verdict, compare
from tests.support.stopped_runs import (
    BATCH_HOOKS,
    BATCHES,
    EPOCHS,
    HOOKS,
    SETUPS,
    SaveOnException,
    Stop,
    stop_at,
    stopped_and_resumed,
)

AVERAGED = {
    "WeightAveraging, StagedUnfreeze": Verdict.REFUSED,
    "schedule_free, EvalWeights, StagedUnfreeze": Verdict.EXACT,
}
"""Mechanisms, and what becomes of a checkpoint that is saved because an exception stops a validation."""


def stopped(setup: str, hook: str, epoch: int, batch: int, by: str, first: bool, folder: Path) -> Outcome:
    """F4, F5: a run that saves because it is stopped in a hook, and resumes from there."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stop = stop_at(hook, epoch, batch, SENDERS[by])
            was_stopped, is_equal = stopped_and_resumed(folder, setup, stop, stop_first=first)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on
    if not was_stopped:
        raise AssertionError("the run was not stopped")
    return compare(True, is_equal)


def _sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # Lightning stops after the next batch


SENDERS: dict[str, Callable[[], BaseException | None]] = {
    "an exception": Stop,
    "SIGTERM": _sigterm,  # type: ignore[dict-item]
    "Ctrl-C": KeyboardInterrupt,
}


class Failing(OptimizerMonitor):
    """Fails in its own hook, in the n-th batch."""

    seen = 0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(*args, **kwargs)
        self.seen += 1
        if self.seen == 17:
            raise Stop


def stopped_in_our_callback(name: str, folder: Path) -> Outcome:
    """F5: an error in a callback of ours is raised as it is, and the checkpoint of that moment resumes."""
    reference(name)
    path = folder / "step=17.ckpt"
    try:
        train(MECHANISMS[name], folder / "runs", Failing(1), SaveOnException(path))
    except Stop as error:
        if error.__context__ is not None:
            return Outcome(Verdict.SILENT_WRONG, f"masked: {error.__context__!r}")
    return resume_and_compare(name, folder, path)


class InValidation(Callback):
    """Kills or stops the run in a validation, when the averaged weights are the module's."""

    def __init__(self, epoch: int, end: Callable[[], None]) -> None:
        self.epoch, self.end = epoch, end

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and trainer.current_epoch == self.epoch:
            self.end()


def _raise() -> None:
    raise Stop


def killed_in_validation(name: str, epoch: int, folder: Path) -> Outcome:
    """F17: killed while the averaged weights are swapped in."""
    reference(name)
    train_and_die(name, folder, InValidation(epoch, kill))
    return resume_and_compare(name, folder, find_newest(folder))


def stopped_in_validation(name: str, epoch: int, folder: Path) -> Outcome:
    """F17: an exception while the averaged weights are swapped in, and the checkpoint of that moment."""
    reference(name)
    path = folder / f"step={4 * epoch + 4}.ckpt"
    try:
        train(MECHANISMS[name], folder / "runs", InValidation(epoch, _raise), SaveOnException(path))
    except Stop:
        return resume_and_compare(name, folder, path)
    raise AssertionError("the run was not stopped")


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F4, F5 and F17."""
    del seed
    hooks = (
        "on_train_batch_start",
        "on_train_batch_end",
        "on_validation_batch_start",
        "on_validation_end",
        "on_train_epoch_end",
    )
    for by, hook, (setup, epoch) in product(
        ("SIGTERM", "Ctrl-C"), hooks, (("validation", 1), ("stage", 2), ("each step", EPOCHS - 1))
    ):
        batch = BATCHES - 1 if hook == "on_train_batch_end" and epoch == EPOCHS - 1 else 0
        fault = f"{by} in {hook}, epoch {epoch}"
        run = partial(stopped, setup, hook, epoch, batch, by, True)
        yield _cell(
            "F4",
            fault,
            f"StagedUnfreeze, plateau: {setup}",
            run,
            slow=epoch == 1 and "batch" not in hook and by == "SIGTERM",
        )
    for position, (setup, hook, epoch) in enumerate(product(SETUPS, HOOKS, (0, 1, 2, EPOCHS - 1))):
        batch = (epoch + position) % (2 if "validation" in hook else BATCHES) if hook in BATCH_HOOKS else 0
        run = partial(stopped, setup, hook, epoch, batch, "an exception", bool(position % 2))
        fault = f"an exception in {hook}, epoch {epoch}, batch {batch}"
        # `tests/callbacks/test_stops.py` raises one in each hook of each setup with the slow tests.
        yield _cell("F5", fault, f"StagedUnfreeze, plateau: {setup}", run, slow=position % 97 == 5)
    for name in ("adamw, torch's, rules", "StagedUnfreeze", "muon + adamw"):
        yield _cell(
            "F5",
            "an exception in a hook of OptimizerMonitor",
            name,
            partial(stopped_in_our_callback, name),
            slow=name == "StagedUnfreeze",
        )
    for (mechanism, after_exception), epoch in product(AVERAGED.items(), (0, 1, 4, 8, 11)):
        for fault, run, allowed in (
            ("SIGKILL", killed_in_validation, Verdict.EXACT),
            ("an exception", stopped_in_validation, after_exception),
        ):
            name = f"{fault} in the validation of epoch {epoch}"
            own = _cell("F17", name, mechanism, partial(run, mechanism, epoch), slow=epoch == 4)
            yield replace(own, allowed=frozenset({allowed}))


def _cell(family: str, fault: str, mechanism: str, run: Callable[[Path], Outcome], *, slow: bool) -> Cell:
    tier: Tier = "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, run=run, tier=tier)
