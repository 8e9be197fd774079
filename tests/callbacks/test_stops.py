"""A checkpoint that Lightning writes because of an exception resumes bitwise, whichever hook it was raised in."""

from __future__ import annotations

import os
import signal
from itertools import product

import pytest

from tests.support.stopped_runs import (
    BATCH_HOOKS,
    BATCHES,
    EPOCHS,
    HOOKS,
    RUN_HOOKS,
    SETUPS,
    stop_at,
    stopped_and_resumed,
)

# Batches that are all the same need no loader that resumes.
pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")

# Each hook in each setup, in the epochs by turns. The backbone thaws in epoch 1; in a stage that waits, later.
CASES = [
    (
        setup,
        hook,
        0 if hook in RUN_HOOKS else (epoch := (1, 2 if setup == "stage" else 0, EPOCHS - 1)[position % 3]),
        (epoch + position) % (2 if "validation" in hook else BATCHES) if hook in BATCH_HOOKS else 0,
    )
    for position, (setup, hook) in enumerate(product(SETUPS, HOOKS))
]


def case_id(case: tuple[str, str, int, int]) -> str:
    setup, hook, epoch, batch = case
    return f"{setup}, {hook}, epoch {epoch}" + (f", batch {batch}" if hook in BATCH_HOOKS else "")


def check(tmp_path, setup, hook, epoch, batch, *, stop_first, **arguments) -> None:
    stopped, equal = stopped_and_resumed(
        tmp_path, setup, stop_at(hook, epoch, batch), stop_first=stop_first, **arguments
    )
    assert stopped
    assert equal


@pytest.mark.parametrize(
    ("setup", "hook", "epoch", "batch", "stop_first"),
    [
        ("training's mean", "on_after_backward", 1, 1, True),
        ("validation", "on_validation_batch_end", 1, 1, False),
        ("module's epoch end", "on_train_epoch_end", 1, 0, True),
        ("validation", "on_fit_start", 0, 0, True),
    ],
)
def test_resumes_bitwise(tmp_path, setup, hook, epoch, batch, stop_first) -> None:
    check(tmp_path, setup, hook, epoch, batch, stop_first=stop_first)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_every_hook_in_every_setup(tmp_path, part) -> None:
    wrong = []
    for position, case in list(enumerate(CASES))[part::8]:
        stopped, equal = stopped_and_resumed(tmp_path, case[0], stop_at(*case[1:]), stop_first=bool(position // 8 % 2))
        wrong += [] if stopped and equal else [case_id(case)]
    assert wrong == []


HARD = {
    "accumulating": {"accumulate_grad_batches": 2},
    "validations within the epoch": {"val_check_interval": 1},
    "validation every second epoch": {"check_val_every_n_epoch": 2},
    "no validation": {"limit_val_batches": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "hook", "arguments"),
    [
        (setup, ("on_after_backward", "on_train_batch_end", "on_train_epoch_end")[position % 3], arguments)
        for position, (setup, arguments) in enumerate(product(("each step", "training's mean", "validation"), HARD))
        if not ("val" in setup and "validation" in arguments and arguments != "validations within the epoch")
    ],
)
def test_other_loops(tmp_path, setup, hook, arguments) -> None:
    # Not between batches whose gradients accumulate: Lightning saves no gradients.
    batch = 1 if hook == "on_train_batch_end" else 0
    check(tmp_path, setup, hook, 1, batch, stop_first=hook != "on_train_epoch_end", **HARD[arguments])


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_signals(tmp_path, hook, by) -> None:
    def send() -> BaseException | None:
        if by == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)  # Lightning stops after the next batch
            return None
        return KeyboardInterrupt()

    before = signal.getsignal(signal.SIGINT)
    try:
        stop = stop_at(hook, 1, 0, send)
        stopped, equal = stopped_and_resumed(tmp_path, "validation", stop, stop_first=True)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on
    assert stopped
    assert equal
