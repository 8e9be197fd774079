"""What OptimizerMonitor costs: as many calls whatever the model, none in a step that is not logged, no growth."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor, nn

from lightning_optim import OptimizerMonitor
from lightning_optim.telemetry.reductions import Reductions
from tests.support.dispatched_ops import Ops
from tests.support.monitored_fit import Watched
from tests.support.tensorboard_events import curves_of, fit_with_events
from tests.support.training import BATCHES, Net, fit


class Many(LightningModule):
    """So many parameters in so many groups."""

    def __init__(self, parameters: int, groups: int) -> None:
        super().__init__()
        self.held = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(parameters)])
        self.groups = groups

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack(list(self.held)).square().sum()

    def configure_optimizers(self) -> Any:
        parts = [list(self.held)[n :: self.groups] for n in range(self.groups)]
        return torch.optim.AdamW([{"params": part} for part in parts])


class Counting(Watched):
    """Counts what its hooks dispatch, by batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: dict[int, Counter[str]] = {}
        self.step = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.step = trainer.fit_loop.epoch_loop._batches_that_stepped
        super().on_train_batch_start(trainer, *args, **kwargs)

    def around(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        with Ops() as ops:
            result = hook(*args, **kwargs)
        self.calls.setdefault(self.step, Counter()).update(ops.calls)
        return result


def calls(folder: Any, parameters: int, groups: int, **arguments: Any) -> dict[int, Counter[str]]:
    monitor = Counting()
    fit_with_events(folder, Many(parameters, groups), monitor, epochs=2, **arguments)
    return monitor.calls


def test_a_logged_step_takes_as_many_calls_whatever_the_model(tmp_path) -> None:
    few = calls(tmp_path / "few", 10, 2)
    assert few[0] == few[5] and 0 < few[0].total() < 20
    for parameters, groups in ((1000, 2), (20, 20), (1000, 20)):
        many = calls(tmp_path / f"{parameters}-{groups}", parameters, groups)
        assert many == few, (parameters, groups)
    assert not any("_local_scalar_dense" in counted for counted in few.values())


def test_clipping_adds_as_many_whatever_the_model(tmp_path) -> None:
    few, many = (calls(tmp_path / f"{n}", n, 2, gradient_clip_val=1.0) for n in (10, 1000))
    assert few == many
    assert not any("_local_scalar_dense" in counted for counted in few.values())


def test_a_step_that_is_not_logged_takes_none(tmp_path) -> None:
    counted = calls(tmp_path, 10, 2, log_every_n_steps=3)
    assert [step for step, found in counted.items() if found] == [2, 5]


class Late(Reductions):
    """Numbers that arrive only when they are waited for."""

    arrived = False  # type: ignore[assignment]


class Written(Logger):
    """Notes what is logged, and when."""

    name, version = "written", 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.trainer: Any = None

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "optim/lr/default" in metrics:
            self.calls.append((self.trainer.fit_loop.epoch_loop._batches_that_stepped, step or 0))


@pytest.fixture
def late(monkeypatch) -> None:
    monkeypatch.setattr("lightning_optim.telemetry.snapshot.Reductions", Late)


def written(folder: Any, *callbacks: Callback, **arguments: Any) -> list[tuple[int, int]]:
    logger = Written()

    class Tells(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            logger.trainer = trainer

    module = Net(lambda module: torch.optim.AdamW(module.parameters()))
    fit(module, folder, Tells(), OptimizerMonitor(1), *callbacks, logger=logger, epochs=2, **arguments)
    return logger.calls


@pytest.mark.usefixtures("late")
def test_what_has_not_arrived_is_written_at_the_end_under_its_own_step(tmp_path) -> None:
    assert written(tmp_path) == [(2 * BATCHES, step) for step in range(2 * BATCHES)]


@pytest.mark.usefixtures("late")
def test_and_before_a_checkpoint(tmp_path) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    found = written(tmp_path, saving, enable_checkpointing=True)
    # Lightning counts a batch when its hooks are done.
    assert found == [(2, 0), (2, 1), (2, 2), (5, 3), (5, 4), (5, 5), (8, 6), (8, 7)]


@pytest.mark.usefixtures("late")
def test_and_on_an_exception(tmp_path) -> None:
    logger = Written()

    class Fails(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            logger.trainer = trainer

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("stop")

    module = Net(lambda module: torch.optim.AdamW(module.parameters()))
    with pytest.raises(RuntimeError, match="stop"):
        fit(module, tmp_path, OptimizerMonitor(1), Fails(), logger=logger, epochs=2)
    assert [step for _, step in logger.calls] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("late")
def test_callback_metrics_are_there_at_once(tmp_path) -> None:
    monitor = OptimizerMonitor(1, to_callback_metrics=True)
    seen = []

    class Reads(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append(trainer.callback_metrics["optim/step/default"].item())

    module = Net(lambda module: torch.optim.AdamW(module.parameters()))
    fit(module, tmp_path, monitor, Reads(), epochs=2)
    assert seen == list(range(1, 2 * BATCHES + 1))


def test_one_event_a_logged_step_for_all_optimizers(tmp_path, monkeypatch) -> None:
    class Two(Net):
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
    fit_with_events(tmp_path, Two(lambda module: None), OptimizerMonitor(), epochs=1)
    assert events == [{"optim_adam", "optim_sgd"}] * BATCHES


@pytest.mark.slow
def test_memory_does_not_grow_over_ten_thousand_logs(tmp_path) -> None:
    blocks, counts = [], []

    class Weighs(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step % 2500 == 500:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
                counts.append(sum(issubclass(type(each), Tensor) for each in gc.get_objects()))

    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield torch.zeros(1)

    monitor = OptimizerMonitor(1)
    module = Many(1, 1)
    logger = TensorBoardLogger(tmp_path)
    fit(module, tmp_path, monitor, Weighs(), logger=logger, loader=Endless(), epochs=-1, max_steps=10_501)
    assert len(blocks) == 5
    assert max(counts) == min(counts)
    assert blocks[-1] - blocks[0] < 2_000  # of memory: a number kept of each log would be 10,000
    assert len(curves_of(tmp_path)["optim/lr/default"]) == 10_501
