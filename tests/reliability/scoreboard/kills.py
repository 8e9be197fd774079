"""F1, F2, F6, F15: SIGKILL before any step, in a chain, inside a step, around a thaw, between batches of one step."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reliability.scoreboard.fits import (
    MECHANISMS,
    NUM_STEPS,
    SAVE_EVERY,
    STAGED,
    find_newest,
    reference,
    resume_and_compare,
    step_of,
    train,
)
from tests.reliability.scoreboard.outcome import Cell, NotRun, Outcome, Tier, Verdict
from tests.support.forks import can_fork, run_forked
from tests.support.runs.killed import Kill

ACCUMULATING = "accumulating 4 batches"


class KillAtBatch(Callback):
    """Kills the process at the start of the n-th batch of the run."""

    def __init__(self, batch: int) -> None:
        self.batch, self.seen = batch, 0

    def on_train_batch_start(self, *_: Any) -> None:
        if self.seen == self.batch:
            kill()
        self.seen += 1


class KillInStep(Callback):
    """Kills the process inside an optimizer's step, after some number of torch's operators."""

    def __init__(self, step: int, num_operators: int) -> None:
        self.step, self.num_operators = step, num_operators

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        optimizer, own = trainer.optimizers[0], self
        original = optimizer.step

        def step(closure: Any = None) -> Any:
            if trainer.global_step != own.step:
                return original(closure)
            loss = closure()
            with KillingMode(own.num_operators):
                original(lambda: loss)
            kill()  # a fused kernel writes everything at once

        optimizer.step = step  # type: ignore[method-assign]


class KillingMode(TorchDispatchMode):
    """Kills the process after the n-th operator that writes into a tensor."""

    def __init__(self, num_operators: int) -> None:
        super().__init__()
        self.remaining = num_operators

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function._schema.is_mutable:
            self.remaining -= 1
            if self.remaining <= 0:
                kill()
        return result


def kill() -> None:
    """End this process as the kernel does when it is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(name: str, folder: Path, death: Callback, **arguments: Any) -> None:
    """Train in a fork, which must be killed."""
    if not can_fork():
        raise NotRun("no fork can train where torch sees a GPU")
    log = folder / "log"
    status = run_forked(lambda: train(MECHANISMS[name], folder, death, **arguments), log)
    if status != -signal.SIGKILL:
        raise AssertionError(f"it was not killed, but ended with {status}: {log.read_text() if log.exists() else ''}")


def check_bound(folder: Path, done: int) -> Outcome | None:
    """T3: at most `SAVE_EVERY` steps are taken again."""
    newest = find_newest(folder)
    lost = done - (0 if newest is None else step_of(newest))
    return None if lost <= SAVE_EVERY else Outcome(Verdict.SILENT_WRONG, f"{lost} steps are lost")


def killed_before_step(name: str, step: int, folder: Path) -> Outcome:
    """F1: killed before the k-th step, resumed from what is on disk."""
    reference(name)
    train_and_die(name, folder, Kill(step - 1))
    return check_bound(folder, step - 1) or resume_and_compare(name, folder, find_newest(folder))


def killed_in_a_chain(name: str, steps: tuple[int, ...], folder: Path) -> Outcome:
    """F1b: killed, resumed and killed again, ..."""
    reference(name)
    for step in steps:
        train_and_die(name, folder, Kill(step), ckpt_path=find_newest(folder))
    return check_bound(folder, steps[-1]) or resume_and_compare(name, folder, find_newest(folder))


def killed_in_step(name: str, num_operators: int, folder: Path) -> Outcome:
    """F2: killed inside `optimizer.step`."""
    reference(name)
    step = num_steps_of(name) // 2 - 2
    train_and_die(name, folder, KillInStep(step, num_operators))
    return check_bound(folder, step) or resume_and_compare(name, folder, find_newest(folder))


def killed_around_thaw(name: str, thaw: int, offset: int, folder: Path) -> Outcome:
    """F6: killed in the batch before a thaw, in that of the thaw, or in the next one; all steps are saved."""
    groups = [(step, len(row)) for step, _, row in reference(name)["trace"]]
    step = [step for (step, before), (_, after) in pairwise(groups) if after > before][thaw] + offset
    train_and_die(name, folder, Kill(step), every_n_steps=1)
    newest = find_newest(folder)
    if newest is None or step_of(newest) != step:
        return Outcome(Verdict.SILENT_WRONG, f"the newest checkpoint is {newest}, after {step} steps")
    return resume_and_compare(name, folder, newest)


def killed_at_batch(batch: int, folder: Path) -> Outcome:
    """F15: killed between the batches of one optimizer step."""
    reference(ACCUMULATING)
    train_and_die(ACCUMULATING, folder, KillAtBatch(batch))
    return check_bound(folder, batch // 4) or resume_and_compare(ACCUMULATING, folder, find_newest(folder))


def killed_twice(batch: int, folder: Path) -> Outcome:
    """F15: killed, resumed, and killed again after a batch, in which ModelCheckpoint saves that step once more."""
    reference(ACCUMULATING)
    train_and_die(ACCUMULATING, folder, KillAtBatch(4 * SAVE_EVERY + 2))
    train_and_die(ACCUMULATING, folder, KillAtBatch(batch), ckpt_path=find_newest(folder))
    return resume_and_compare(ACCUMULATING, folder, find_newest(folder))


def num_steps_of(name: str) -> int:
    """The optimizer steps of a mechanism's run."""
    return NUM_STEPS // int(MECHANISMS[name].trainer.get("accumulate_grad_batches", 1))


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F1, F1b, F2, F6 and F15; the seed chooses where the chains are cut."""
    for position, name in enumerate(MECHANISMS):
        for step in range(1, num_steps_of(name) + 1):
            is_slow = step == (12 if position % 2 else 4)
            yield cell("F1", f"SIGKILL before step {step}", name, killed_before_step, step, slow=is_slow)
        chain = tuple(sorted(random.Random(seed + position).sample(range(1, num_steps_of(name)), 5)))
        yield cell("F1b", f"SIGKILL after {chain} steps", name, killed_in_a_chain, chain, slow=position % 8 == 1)
        for number in (1, 2, 5, 20, 60):
            is_slow = number == 5 and position % 3 == 0
            yield cell("F2", f"SIGKILL after {number} writes in a step", name, killed_in_step, number, slow=is_slow)
    for position, name in enumerate(STAGED):
        for thaw, offset in product(range(4), (-1, 0, 1)):
            fault = f"SIGKILL {('before', 'at', 'after')[offset + 1]} thaw {thaw + 1}"
            is_slow = (thaw, offset) == ((0, 0), (3, 1))[position % 2]
            yield cell("F6", fault, name, killed_around_thaw, thaw, offset, slow=is_slow)
    for batch in range(24, NUM_STEPS):
        if batch % 4:
            fault = f"SIGKILL before batch {batch % 4 + 1} of 4 of step {batch // 4 + 1}"
            run, tier = partial(killed_at_batch, batch), "slow" if batch == 30 else "full"
            yield Cell(family="F15", fault=fault, mechanism=ACCUMULATING, run=run, tier=tier)
    for batch in (1, 2, 3):
        fault = f"SIGKILL before batch {batch + 1} of 4 of a resumed run"
        run, tier = partial(killed_twice, batch), "slow" if batch == 1 else "full"
        yield Cell(family="F15", fault=fault, mechanism=ACCUMULATING, run=run, tier=tier)


def cell(family: str, fault: str, name: str, function: Callable[..., Outcome], *arguments: Any, slow: bool) -> Cell:
    """A cell of a mechanism."""
    tier: Tier = "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=name, run=partial(function, name, *arguments), tier=tier)
