"""A run that is resumed between two epochs, and resumed again later, takes the steps of an uninterrupted one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_optim import (
    EvalWeights,
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    RNGState,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.callbacks.resumed_epoch import ResumedEpochCallback
from lightning_optim.callbacks.saved_loops import count_uncounted_epoch
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.stopped_runs import SaveOnException, Stop
from tests.support.training import BATCHES, Loader, Net, fit

EPOCHS = 4
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}
CALLBACKS: dict[str, Callable[[], list[Callback]]] = {
    "EvalWeights": lambda: [EvalWeights()],
    "OptimizerMonitor": lambda: [OptimizerMonitor(1, to_callback_metrics=True)],
    "OptimizerOverride": lambda: [OptimizerOverride(OptimizerFactory("adamw", lr=0.02))],
    "RNGState": lambda: [RNGState()],
    "SophiaHessian": lambda: [SophiaHessian(2)],
    "StagedUnfreeze": lambda: [StagedUnfreeze(STAGES)],
    "all": lambda: [StagedUnfreeze(STAGES), OptimizerMonitor(1, to_callback_metrics=True), RNGState()],
}
OPTIMIZERS: dict[str, Any] = {
    "EvalWeights": OptimizerFactory("sgd", lr=0.05, schedule_free={}),
    "SophiaHessian": OptimizerFactory("sophia_g", lr=0.02),
}


class CountingNet(Net):
    """Counts its batches and the epochs that begin; validates twice per epoch."""

    def __init__(self, optimizer: OptimizerFactory) -> None:
        torch.manual_seed(0)
        scheduler = None if optimizer.name != "adamw" else SchedulerFactory("warmup_cosine", warmup_steps=6)
        super().__init__(lambda module: configure_optimizers(module, optimizer, scheduler))
        self.batches: list[tuple[int, int]] = []
        self.epochs: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.batches.append((self.current_epoch, batch_idx))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self(batch[0]).square().mean())

    def val_dataloader(self) -> Loader:
        return Loader(2)

    def on_train_epoch_start(self) -> None:
        self.epochs.append(self.current_epoch)


class StopInStep(Callback):
    """Raises within the batch after these steps, before it is counted as processed."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Stop


class SaveAt(Callback):
    """Saves `<hook>-<step>.ckpt` in these hooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, hook: str, trainer: Trainer) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{hook}-{trainer.global_step}.ckpt", weights_only=False)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save("batch", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.save("validation", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save("epoch", trainer)


def run(
    folder: Path, *callbacks: Callback, stop: int | None = None, ckpt_path: Path | None = None, name: str = "RNGState"
) -> tuple[CountingNet, Trainer | None]:
    """A run that may be stopped within the step after `stop`, and then saves `stopped.ckpt`."""
    module = CountingNet(OPTIMIZERS.get(name, OptimizerFactory("adamw", lr=0.02)))
    own = [*callbacks, StopInStep(stop), SaveAt(folder), SaveOnException(folder / "stopped.ckpt")]
    arguments = {"ckpt_path": ckpt_path, "val_check_interval": 2, "enable_checkpointing": True}
    try:
        return module, fit(module, folder, *own, epochs=EPOCHS, **arguments)  # type: ignore[arg-type]
    except Stop:
        return module, None


def is_as_uninterrupted(full: CountingNet, module: CountingNet, trainer: Trainer | None, *, done: int) -> bool:
    """Whether a run has taken the rest of the batches, and ended with the same weights."""
    steps = EPOCHS * BATCHES
    is_all = module.batches == full.batches[done:] and trainer is not None and trainer.global_step == steps
    return is_all and equal(module.state_dict(), full.state_dict())


def counts(checkpoint: Any) -> dict[str, Any]:
    """What the loops have counted, without validation batches: any resume leaves those of another epoch there."""
    state = checkpoint["loops"]["fit_loop"]
    return {key: value for key, value in state.items() if key != "combined_loader" and "val_loop" not in key}


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", every(CALLBACKS, fast=["all"]))
def test_a_chain_of_resumes_is_bitwise(tmp_path, name) -> None:
    """Without `begin_uncounted_epoch`, the last run takes its epoch from its first batch: up to 3 steps too many."""
    full, _ = run(tmp_path, *CALLBACKS[name](), name=name)
    for folder, saved, stopped in (("a", 4, 6), ("b", 8, 13)):
        checkpoint = tmp_path / f"batch-{saved}.ckpt"
        second, _ = run(tmp_path / folder, *CALLBACKS[name](), stop=stopped, ckpt_path=checkpoint, name=name)
        assert second.batches == full.batches[saved : stopped + 1]
        assert second.epochs == full.epochs[saved // BATCHES : stopped // BATCHES + 1], "epochs that began"
        newest = tmp_path / folder / f"batch-{stopped}.ckpt"
        module, trainer = run(tmp_path / "end", *CALLBACKS[name](), ckpt_path=newest, name=name)
        assert is_as_uninterrupted(full, module, trainer, done=stopped), (saved, stopped)


@pytest.mark.slow
def test_checkpoints_after_a_resume_between_epochs_have_the_counts_of_an_uninterrupted_run(tmp_path) -> None:
    """In validations and at the end of epochs too, where nothing in the checkpoint shows that they are wrong."""
    run(tmp_path / "full", RNGState())
    run(tmp_path / "resumed", RNGState(), ckpt_path=tmp_path / "full" / "batch-4.ckpt")
    names = [path.name for path in (tmp_path / "resumed").glob("*-*.ckpt")]
    assert len(names) == 3 * (BATCHES + 2 + 1)
    for name in names:
        assert counts(load(tmp_path / "resumed" / name)) == counts(load(tmp_path / "full" / name)), name


@pytest.mark.slow
@pytest.mark.parametrize("newest", every(["batch-6", "batch-8", "epoch-8"], fast=["batch-6", "epoch-8"]))
def test_a_chain_whose_first_resume_had_none_of_our_callbacks_is_bitwise(tmp_path, newest) -> None:
    """Lightning alone saves counts that contradict each other; without `count_uncounted_epoch`, they are believed."""
    full, _ = run(tmp_path)
    run(tmp_path / "a", stop=9, ckpt_path=tmp_path / "batch-4.ckpt")
    module, trainer = run(tmp_path / "end", RNGState(), ckpt_path=tmp_path / "a" / f"{newest}.ckpt")
    assert is_as_uninterrupted(full, module, trainer, done=int(newest[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", every(list(CALLBACKS)[:-1], fast=["StagedUnfreeze"]))
def test_each_callback_corrects_what_an_older_release_has_saved(tmp_path, monkeypatch, name) -> None:
    full, _ = run(tmp_path, *CALLBACKS[name](), name=name)
    with monkeypatch.context() as older:
        for hook in ("on_train_start", "on_load_checkpoint"):
            older.setattr(ResumedEpochCallback, hook, lambda *_: None)
        run(tmp_path / "a", *CALLBACKS[name](), stop=6, ckpt_path=tmp_path / "batch-4.ckpt", name=name)
    newest = tmp_path / "a" / "batch-6.ckpt"
    module, trainer = run(tmp_path / "end", *CALLBACKS[name](), ckpt_path=newest, name=name)
    assert is_as_uninterrupted(full, module, trainer, done=6)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_backward"])
def test_what_an_exception_within_a_step_saves_is_counted_too(tmp_path, monkeypatch, hook) -> None:
    monkeypatch.setattr(StopInStep, hook, StopInStep.on_before_backward, raising=False)
    for folder, checkpoint in (("full", None), ("resumed", tmp_path / "full" / "batch-4.ckpt")):
        run(tmp_path / folder, stop=6, ckpt_path=checkpoint)
    full, resumed = (load(tmp_path / folder / "stopped.ckpt") for folder in ("full", "resumed"))
    assert counts(resumed) != counts(full)
    count_uncounted_epoch(resumed)
    assert counts(resumed) == counts(full)


class EveryState(Callback):
    """The loops in each hook, at each optimizer step, and after the run."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def read(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.states.append({"loops": copy.deepcopy({"fit_loop": trainer.fit_loop.state_dict()})})


HOOKS = [name for name in dir(Callback) if name.startswith("on_") and "checkpoint" not in name] + ["teardown"]
for hook in HOOKS:
    setattr(EveryState, hook, EveryState.read)


class Skipping(Net):
    """Skips the rest of each epoch at its third batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 2 else None


@pytest.mark.parametrize(
    ("net", "stop", "arguments"),
    [
        (Net, None, {}),
        (Net, 6, {}),
        (Net, None, {"max_steps": 6}),
        (Skipping, None, {"val_check_interval": 1}),
        (Net, None, {"accumulate_grad_batches": 3}),
    ],
    ids=["to its end", "an exception", "max_steps within an epoch", "epochs cut short", "accumulation"],
)
def test_other_checkpoints_are_left_alone(tmp_path, net, stop, arguments) -> None:
    module: LightningModule = net(lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
    states = EveryState()
    with suppress(Stop):
        fit(module, tmp_path, StopInStep(stop), states, epochs=3, **arguments)
    assert len(states.states) > 40
    for state in states.states:
        before = copy.deepcopy(state)
        count_uncounted_epoch(state)
        assert state == before


@pytest.mark.parametrize(
    "loops", [{}, {"fit_loop": {}}, {"fit_loop": {"epoch_progress": {"total": 1, "current": "a"}}}]
)
def test_what_are_no_loops_is_left_to_lightning(loops) -> None:
    checkpoint = {"loops": copy.deepcopy(loops)}
    count_uncounted_epoch(checkpoint)
    assert checkpoint == {"loops": loops}
    count_uncounted_epoch({})


def test_a_resume_in_the_middle_of_an_epoch_begins_no_epoch_again(tmp_path) -> None:
    full, _ = run(tmp_path, RNGState())
    module, trainer = run(tmp_path / "a", RNGState(), ckpt_path=tmp_path / "batch-6.ckpt")
    assert module.epochs == [2, 3]
    assert is_as_uninterrupted(full, module, trainer, done=6)
