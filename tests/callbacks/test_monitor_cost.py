"""What OptimizerMonitor costs: a fixed number of torch calls per logged step, none in other steps, no memory."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor, nn

from lightning_optim import OptimizerMonitor
from lightning_optim.telemetry.reductions import Reductions
from tests.support.dispatched_ops import OpCounter
from tests.support.monitored_fit import HookedMonitor, ManyParameters
from tests.support.tensorboard_events import fit_with_events, read_curves
from tests.support.training import BATCHES, Net, fit


class CountingMonitor(HookedMonitor):
    """Counts the torch calls of its hooks, by optimizer step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, Counter[str]] = {}
        self.step = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.step = trainer.global_step
        super().on_train_batch_start(trainer, *args, **kwargs)

    def run_hook(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        with OpCounter() as ops:
            result = hook(*args, **kwargs)
        self.calls.setdefault(self.step, Counter()).update(ops.calls)
        return result


def count_calls(folder: Path, num_parameters: int, num_groups: int, **arguments: Any) -> dict[int, Counter[str]]:
    monitor = CountingMonitor()
    fit_with_events(folder, ManyParameters(num_parameters, num_groups), monitor, epochs=2, **arguments)
    return monitor.calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip", [pytest.param(None, id="unclipped", marks=pytest.mark.slow), pytest.param(1.0, id="clipped")]
)
def test_a_logged_step_takes_the_same_calls_for_a_model_of_any_size(tmp_path, clip) -> None:
    few = count_calls(tmp_path / "few", 10, 2, gradient_clip_val=clip)
    many = count_calls(tmp_path / "many", 1000, 20, gradient_clip_val=clip)
    assert few == many
    assert few[0] == few[5] and 0 < few[0].total() < (20 if clip is None else 30)
    assert not any("_local_scalar_dense" in calls for calls in few.values()), "it waits for the device"


def test_a_step_that_is_not_logged_takes_no_calls(tmp_path) -> None:
    calls = count_calls(tmp_path, 10, 2, log_every_n_steps=3)
    assert [step for step, counted in calls.items() if counted] == [2, 5]


class LateReductions(Reductions):
    """Never ready before they are waited for."""

    is_ready = False  # type: ignore[assignment]


@pytest.fixture
def late(monkeypatch) -> None:
    monkeypatch.setattr("lightning_optim.telemetry.snapshot.Reductions", LateReductions)


class StepLogger(Logger):
    """When the monitor's values are logged: `(optimizer steps done, step they are logged for)`."""

    name, version = "steps", 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.trainer: Any = None

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "optim/lr/default" in metrics:
            self.calls.append((self.trainer.global_step, step or 0))


def fit_and_log(folder: Path, *callbacks: Callback, **arguments: Any) -> list[tuple[int, int]]:
    """The calls of the logger, until the end or an exception."""
    logger = StepLogger()

    class GiveTrainer(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            logger.trainer = trainer

    module = Net(lambda module: torch.optim.AdamW(module.parameters()))
    with suppress(ZeroDivisionError):
        fit(module, folder, GiveTrainer(), OptimizerMonitor(1), *callbacks, logger=logger, epochs=2, **arguments)
    return logger.calls


@pytest.mark.usefixtures("late")
def test_late_values_are_written_at_the_end_under_their_own_steps(tmp_path) -> None:
    assert fit_and_log(tmp_path) == [(2 * BATCHES, step) for step in range(2 * BATCHES)]


@pytest.mark.usefixtures("late")
def test_late_values_are_written_before_a_checkpoint(tmp_path) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    calls = fit_and_log(tmp_path, saving, enable_checkpointing=True)
    assert calls == [(3, 0), (3, 1), (3, 2), (6, 3), (6, 4), (6, 5), (8, 6), (8, 7)]


@pytest.mark.usefixtures("late")
def test_late_values_are_written_on_an_exception(tmp_path) -> None:
    class Failing(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise ZeroDivisionError

    assert fit_and_log(tmp_path, Failing()) == [(5, step) for step in range(5)]


@pytest.mark.usefixtures("late")
def test_callback_metrics_are_set_in_the_same_batch(tmp_path) -> None:
    monitor = OptimizerMonitor(1, to_callback_metrics=True)
    steps = []

    class Reading(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            steps.append(trainer.callback_metrics["optim/step/default"].item())

    module = Net(lambda module: torch.optim.AdamW(module.parameters()))
    fit(module, tmp_path, monitor, Reading(), epochs=2)
    assert steps == list(range(1, 2 * BATCHES + 1))


def test_a_logged_step_is_one_event_for_all_optimizers(tmp_path, monkeypatch) -> None:
    class TwoOptimizers(Net):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(self.head.parameters(), 0.1), torch.optim.SGD(self.backbone.parameters(), 0.2)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

    from torch.utils.tensorboard import FileWriter

    events = []
    add_summary = FileWriter.add_summary

    def count(writer: Any, summary: Any, *args: Any) -> None:
        if any(value.tag.startswith("optim_adam/lr") for value in summary.value):
            events.append({value.tag.split("/")[0] for value in summary.value})
        add_summary(writer, summary, *args)

    monkeypatch.setattr(FileWriter, "add_summary", count)
    fit_with_events(tmp_path, TwoOptimizers(lambda module: None), OptimizerMonitor(overlay=False), epochs=1)
    assert events == [{"optim_adam", "optim_sgd"}] * BATCHES


@pytest.mark.slow
def test_memory_does_not_grow_over_two_thousand_logs(tmp_path) -> None:
    blocks, counts = [], []

    class Weighing(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.global_step % 500 == 100:
                monitor.on_save_checkpoint(trainer, pl_module, {})  # what waits for the disk is no growth
                gc.collect()
                blocks.append(sys.getallocatedblocks())
                counts.append(sum(issubclass(type(obj), Tensor) for obj in gc.get_objects()))

    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield torch.zeros(1)

    monitor = OptimizerMonitor(1)
    module = ManyParameters(1, 1)
    logger = TensorBoardLogger(tmp_path)
    fit(module, tmp_path, monitor, Weighing(), logger=logger, loader=Endless(), epochs=-1, max_steps=2_151)
    assert len(blocks) == 5
    assert max(counts) == min(counts)
    assert blocks[-1] - blocks[0] < 1_000  # memory blocks: one number stored per log would be 2,000
    assert len(read_curves(tmp_path)["optim/lr/default"]) == 2_151


def test_a_step_asks_lightning_once_whether_it_is_logged(tmp_path, monkeypatch) -> None:
    asked: list[int] = []

    def count(trainer: Trainer) -> bool:
        asked.append(trainer.global_step)
        return False

    monkeypatch.setattr("lightning_optim.callbacks.monitor.logs_this_step", count)
    fit_with_events(tmp_path, Net(lambda module: torch.optim.SGD(module.parameters(), 0.1)), OptimizerMonitor())
    assert asked == list(range(4 * BATCHES))


@pytest.mark.parametrize("update_norm", [False, True])
def test_a_step_that_stops_the_fit_is_logged_unless_something_before_it_would_be_missing(tmp_path, update_norm) -> None:
    class Stopping(Net):
        def training_step(self, *args: Any) -> Tensor:
            self.trainer.should_stop = self.global_step == 2
            return super().training_step(*args)

    module = Stopping(lambda module: torch.optim.SGD(module.parameters(), 0.1))
    monitor = OptimizerMonitor(update_norm=update_norm)
    curves = fit_with_events(tmp_path, module, monitor, log_every_n_steps=50, min_epochs=0)
    assert [step for step, _ in curves["loss"]] == [2], "Lightning's own"
    assert [step for step, _ in curves.get("optim/norm/grad/default", [])] == ([] if update_norm else [2])
