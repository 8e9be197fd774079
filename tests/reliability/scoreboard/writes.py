"""F3, F18: a process that dies or fails while it writes a checkpoint; a disk that is slower than the training."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fsspec.implementations.local import LocalFileOpener
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lightning_optim import ConfigError
from recipes.checkpoints import AtomicCheckpointIO
from tests.reliability.scoreboard.fits import MECHANISMS, find_newest, reference, resume_and_compare, step_of, train
from tests.reliability.scoreboard.kills import kill
from tests.reliability.scoreboard.outcome import EXACT_OR_REFUSED, Cell, NotRun, Outcome, Tier, Verdict, compare
from tests.support.forks import can_fork, run_forked

MECHANISM = "StagedUnfreeze, muon + adamw"
BROKEN_STEP = 10
"""The steps in the checkpoint whose writing is broken."""
OTHER_MOUNT = "Lightning's IO, TMPDIR on another mount"
IOS: dict[str, Callable[[], Any]] = {
    "Lightning's IO": TorchCheckpointIO,
    OTHER_MOUNT: TorchCheckpointIO,
    "the recipe's atomic IO": AtomicCheckpointIO,
}


class LimitSize(Callback):
    """While the checkpoint of `BROKEN_STEP` is written, the kernel lets no file of this process exceed some size."""

    def __init__(self, tenths: int, *, deadly: bool, after_move: bool) -> None:
        self.tenths, self.deadly, self.after_move = tenths, deadly, after_move

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.global_step != BROKEN_STEP:
            return
        assert trainer.checkpoint_callback is not None
        earlier = find_newest(Path(str(trainer.checkpoint_callback.dirpath)))
        assert earlier is not None
        limit = earlier.stat().st_size * self.tenths // 10 + 1
        if not self.after_move:
            return self.set_limit(limit)
        move = shutil.move

        def limited_move(*args: Any, **kwargs: Any) -> Any:
            self.set_limit(limit)
            return move(*args, **kwargs)

        shutil.move = limited_move

    def set_limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        if self.deadly:  # Python ignores it, and gets the error EFBIG
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


class FailToWrite(Callback):
    """From the checkpoint of `BROKEN_STEP` on, writing and syncing fail with an error of the operating system."""

    def __init__(self, code: int) -> None:
        self.code = code

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        def fail(*_: Any) -> None:
            raise OSError(self.code, os.strerror(self.code))

        if trainer.global_step == BROKEN_STEP:
            os.fsync = LocalFileOpener.write = fail  # type: ignore[method-assign]


def broken_while_writing(io: str, breaking: Callable[[bool], Callback], status: int, folder: Path) -> Outcome:
    """F3: the newest file that has a checkpoint's name resumes, or is refused and the one before it resumes."""
    reference(MECHANISM)
    if not can_fork():
        raise NotRun("no fork can train where torch sees a GPU")
    saved, log = folder / "saved", folder / "log"
    with _other_mount(saved) if io == OTHER_MOUNT else _nothing():
        death = breaking(io == OTHER_MOUNT)
        ended = run_forked(lambda: train(MECHANISMS[MECHANISM], saved, death, plugins=[IOS[io]()]), log)
    if ended != status:
        raise AssertionError(f"it ended with {ended}: {log.read_text()[-600:] if log.exists() else ''}")
    paths = sorted(saved.glob("*.ckpt"), key=step_of)
    if step_of(paths[-1]) < BROKEN_STEP:
        outcome = resume_and_compare(MECHANISM, folder, paths[-1])
    else:
        try:
            outcome = resume_and_compare(MECHANISM, folder, paths[-1])
        except ConfigError as error:
            before = resume_and_compare(MECHANISM, folder / "before", paths[-2])
            outcome = Outcome(Verdict.REFUSED, str(error)) if before.verdict is Verdict.EXACT else before
    if io == "the recipe's atomic IO" and outcome.verdict is Verdict.EXACT:
        AtomicCheckpointIO().save_checkpoint({}, saved / "next.ckpt")
        if left := [path.name for path in saved.iterdir() if path.suffix != ".ckpt"]:
            return Outcome(Verdict.SILENT_WRONG, f"left behind: {left}")
    return outcome


@contextmanager
def _other_mount(folder: Path) -> Iterator[None]:
    """Temporary files on another file system than the folder's, from which a rename is a copy."""
    folder.mkdir()
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == folder.stat().st_dev:
        raise NotRun("there is no second file system to write to")
    with tempfile.TemporaryDirectory(dir=shared) as other, mock.patch.object(tempfile, "tempdir", other):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class SlowIO(TorchCheckpointIO):
    """Takes longer than a few steps, and records in which order it has written."""

    def __init__(self, seconds: float = 0.03) -> None:
        self.seconds, self.written = seconds, []  # type: ignore[var-annotated]

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        time.sleep(self.seconds)
        super().save_checkpoint(checkpoint, path, storage_options)
        self.written.append(Path(path).name)


class SlowAtomicIO(AtomicCheckpointIO):
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        time.sleep(0.03)
        super().save_checkpoint(checkpoint, path, storage_options)


def saved_slowly(name: str, folder: Path) -> Outcome:
    """F18: each checkpoint holds the values of its moment, as one that is written at once."""
    train(MECHANISMS[name], folder / "at once", every_n_steps=4)
    slow = SlowIO()
    train(MECHANISMS[name], folder / "slow", every_n_steps=4, plugins=[AsyncCheckpointIO(slow)])
    steps = [step_of(Path(file)) for file in slow.written]
    if steps != sorted(steps) or len(steps) != 12:
        return Outcome(Verdict.SILENT_WRONG, f"written in the order {steps}")
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "global_step")
    for file in slow.written:
        one, other = (torch.load(folder / kind / file, weights_only=True) for kind in ("at once", "slow"))
        for content in (one, other):
            content["callbacks"] = {k: v for k, v in content["callbacks"].items() if "ModelCheckpoint" not in k}
        outcome = compare({key: one[key] for key in keys}, {key: other[key] for key in keys})
        if outcome.verdict is not Verdict.EXACT:
            return Outcome(outcome.verdict, f"{file}: {outcome.detail}")
    newest = find_newest(folder / "slow")
    return resume_and_compare(name, folder, folder / "slow" / "step=20.ckpt") if newest else compare(True, False)


class SaveTwice(Callback):
    """Saves to one path, again and again; dies when some of it is still to be written."""

    def __init__(self, path: Path, dies_at: int | None) -> None:
        self.path, self.dies_at = path, dies_at

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.global_step == self.dies_at:
            time.sleep(0.04)  # so that one is complete
            kill()


def saved_slowly_to_one_path(dies_at: int | None, folder: Path) -> Outcome:
    """F18: of several saves to one path, the last complete one wins; it resumes bitwise."""
    reference(MECHANISM)
    path = folder / "step=0.ckpt"
    saving = SaveTwice(path, dies_at)
    plugins = [AsyncCheckpointIO(SlowAtomicIO())]
    run = partial(train, MECHANISMS[MECHANISM], folder / "runs", saving, every_n_steps=1000, plugins=plugins)
    if dies_at is None:
        run(max_steps=17)
        steps_done = 17
    else:
        if not can_fork():
            raise NotRun("no fork can train where torch sees a GPU")
        if (status := run_forked(run, folder / "log")) != -signal.SIGKILL:
            raise AssertionError(f"it ended with {status}")
        steps_done = dies_at
    saved = int(torch.load(path, weights_only=True)["global_step"])
    if saved > steps_done or (dies_at is None and saved != steps_done):
        return Outcome(Verdict.SILENT_WRONG, f"the file holds step {saved} of {steps_done}")
    return resume_and_compare(MECHANISM, folder, path.rename(folder / f"step={saved}.ckpt"))


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F3 and F18."""
    del seed
    for io, tenths in product(IOS, range(10)):
        for deadly in (True, False):
            fault = f"{'killed' if deadly else 'file too large'} at {tenths}/10 of the file"
            status = -signal.SIGXFSZ if deadly else 1
            breaking = partial(_limit, tenths, deadly)
            is_slow = (tenths, deadly) in ((5, True), (9, False)) and io != "Lightning's IO"
            yield _cell("F3", fault, io, partial(broken_while_writing, io, breaking, status), slow=is_slow)
    for io, code in product(IOS, (errno.ENOSPC, errno.EIO)):
        run = partial(broken_while_writing, io, partial(_fail, code), 1)
        yield _cell("F3", errno.errorcode[code], io, run, slow=code == errno.ENOSPC and "atomic" in io)
    for name in ("adamw, torch's, rules", "muon + adamw", "all modifiers", "master_weights, bfloat16", MECHANISM):
        yield _cell(
            "F18", "12 saves to a slow disk, asynchronous", name, partial(saved_slowly, name), slow=name == MECHANISM
        )
    for dies_at in (None, 6, 13, 29):
        fault = "slow saves to one path" + (f", SIGKILL after {dies_at} steps" if dies_at else "")
        run = partial(saved_slowly_to_one_path, dies_at)
        yield _cell("F18", fault, MECHANISM, run, slow=dies_at == 13)


def _limit(tenths: int, deadly: bool, after_move: bool) -> Callback:
    return LimitSize(tenths, deadly=deadly, after_move=after_move)


def _fail(code: int, after_move: bool) -> Callback:
    del after_move
    return FailToWrite(code)


def _cell(family: str, fault: str, mechanism: str, run: Callable[[Path], Outcome], *, slow: bool) -> Cell:
    tier: Tier = "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, run=run, tier=tier, allowed=EXACT_OR_REFUSED)
