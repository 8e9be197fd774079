"""The private names of Lightning that the package uses: each still means what we take it for, all in one module."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.fabric.loggers import TensorBoardLogger as FabricTensorBoardLogger
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import model_parallel
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lightning_optim
from lightning_optim import OptimizerFactory, configure_optimizers
from lightning_optim.callbacks import lightning_internals as internals
from lightning_optim.callbacks import saved_loops
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, fit

PACKAGE = Path(lightning_optim.__file__).parent
INTERNALS = PACKAGE / "callbacks" / "lightning_internals.py"


class ValidatedNet(Net):
    """Logs metrics with every reduction, and has validations of two batches."""

    def __init__(self) -> None:
        super().__init__(lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
        self.batch_values: list[float] = []
        self.num_validations = 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.batch_values.append(loss.item())
        for reduction in ("mean", "sum", "min", "max"):
            self.log(reduction, loss, on_step=False, on_epoch=True, reduce_fx=reduction, batch_size=batch_idx + 1)
        self.log("synced", loss, on_epoch=True, on_step=False, sync_dist=True)
        self.log("batch", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.num_validations += batch_idx == 0

    def val_dataloader(self) -> Loader:
        return Loader(2)


class AtBatches(Callback):
    """What `read(trainer)` returns at the start and at the end of each training batch."""

    def __init__(self, read: Callable[[Trainer], Any]) -> None:
        self.read = read
        self.starts: list[Any] = []
        self.ends: list[Any] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.starts.append(self.read(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.ends.append(self.read(trainer))


class AtSave(Callback):
    """What `read(trainer)` returns when each checkpoint is saved."""

    def __init__(self, read: Callable[[Trainer], Any]) -> None:
        self.read = read
        self.values: list[Any] = []

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self.values.append(self.read(trainer))


class MemoryLogger(Logger):
    name, version = "memory", 0

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.hyperparameters: dict[str, Any] = {}

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.hyperparameters.update(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "batch" in metrics:
            self.steps.append(step or 0)


# The trainer and its module


def test_attached_trainer_is_the_module_s_or_none(tmp_path) -> None:
    module = ValidatedNet()
    assert internals.attached_trainer(module) is None
    trainer = fit(module, tmp_path, epochs=1)
    assert internals.attached_trainer(module) is trainer is module.trainer


def test_initial_hyperparameters_are_those_that_lightning_logs(tmp_path) -> None:
    class Named(ValidatedNet):
        def __init__(self, width: int, unlogged: bool = False) -> None:
            super().__init__()
            self.save_hyperparameters(logger=not unlogged)

    class Data(LightningDataModule):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Loader:
            return Loader()

        def val_dataloader(self) -> Loader:
            return Loader(2)

    for unlogged in (False, True):
        logger, module = MemoryLogger(), Named(3, unlogged)
        # A datamodule is passed in place of a loader.
        trainer = fit(module, tmp_path, loader=Data(5), epochs=1, logger=logger)
        found = internals.initial_hyperparameters(trainer)
        assert found == {"size": 5, **({} if unlogged else {"width": 3, "unlogged": False})}
        assert found == {key: logger.hyperparameters[key] for key in found} and logger.hyperparameters == found


@pytest.mark.parametrize("step", [None, 0, 3])
def test_purge_step_is_that_of_a_tensorboard_logger(tmp_path, step) -> None:
    for logger in (TensorBoardLogger(tmp_path, purge_step=step), FabricTensorBoardLogger(tmp_path, purge_step=step)):
        assert logger.experiment.purge_step is None, "the writer forgets it"
        assert internals.purge_step(logger) == step
    assert internals.purge_step(CSVLogger(tmp_path)) is internals.purge_step(DummyLogger()) is None


# The position of the training loop


@pytest.mark.parametrize("every_n_steps", [0, 1, 3, 50])
def test_logs_this_step_is_what_lightning_finds(tmp_path, every_n_steps) -> None:
    class Stop(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 5

    found = AtBatches(internals.logs_this_step)
    expected = AtBatches(lambda trainer: trainer._logger_connector.should_update_logs)
    callbacks = (Stop(), found, expected)
    fit(ValidatedNet(), tmp_path, *callbacks, epochs=3, min_epochs=2, log_every_n_steps=every_n_steps)
    assert (found.starts, found.ends) == (expected.starts, expected.ends)
    assert len(set(found.starts)) == (2 if every_n_steps in (3, 50) else 1)


def test_logger_step_and_logs_this_step_are_those_of_the_logged_metrics(tmp_path) -> None:
    logger, at = MemoryLogger(), AtBatches(lambda trainer: (internals.logger_step(trainer), trainer.global_step))
    logs = AtBatches(internals.logs_this_step)
    fit(ValidatedNet(), tmp_path, at, logs, epochs=2, logger=logger, log_every_n_steps=3)
    assert at.starts == [(step, step) for step in range(2 * BATCHES)]
    assert logger.steps == [step for (step, _), is_logged in zip(at.starts, logs.ends, strict=True) if is_logged]
    assert logger.steps == [2, 5]


def test_has_run_all_batches_where_lightning_steps_a_scheduler_by_epoch(tmp_path) -> None:
    class Scheduled(ValidatedNet):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    class AtEnds(Callback):
        found: ClassVar[list[bool]] = []

        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            self.found.append(internals.has_run_all_batches(trainer))

    trainer = fit(Scheduled(), tmp_path, AtEnds(), epochs=2, max_steps=2 * BATCHES - 1)
    assert AtEnds.found == [True, False]
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == AtEnds.found.count(True)


def test_logger_step_counts_a_batch_once_however_many_optimizers_step(tmp_path) -> None:
    class Manual(ValidatedNet):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.head, self.backbone)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

    at = AtBatches(lambda trainer: (internals.logger_step(trainer), trainer.global_step))
    fit(Manual(), tmp_path, at, epochs=1)
    assert at.starts == [(step, 2 * step) for step in range(BATCHES)]


def test_is_accumulating_until_the_optimizer_steps(tmp_path) -> None:
    accumulating, steps = AtBatches(internals.is_accumulating), AtBatches(lambda trainer: trainer.global_step)
    fit(ValidatedNet(), tmp_path, accumulating, steps, loader=Loader(5), epochs=1, accumulate_grad_batches=2)
    stepped = [end > start for start, end in zip(steps.starts, steps.ends, strict=True)]
    assert accumulating.ends == [not step for step in stepped] == [True, False, True, False, False]


def test_accumulated_batches_are_those_of_a_step_to_come(tmp_path) -> None:
    accumulated = AtBatches(internals.accumulated_batches)
    fit(ValidatedNet(), tmp_path, accumulated, loader=Loader(5), epochs=2, accumulate_grad_batches=3)
    assert accumulated.starts == [0, 1, 2, 0, 1] * 2
    assert accumulated.ends == [1, 2, 0, 1, 0] * 2  # Lightning steps after the last batch


def test_position_in_the_epoch(tmp_path) -> None:
    class AtHooks(Callback):
        between: dict[str, list[bool]]
        within: dict[str, list[bool]]

        def __init__(self) -> None:
            self.between, self.within = {}, {}

        def note(self, hook: str, trainer: Trainer) -> None:
            self.between.setdefault(hook, []).append(internals.is_between_epochs(trainer))
            self.within.setdefault(hook, []).append(internals.is_within_epoch(trainer))

        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            self.note("start", trainer)

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            self.note("batch", trainer)

        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            self.note("epoch end", trainer)

        def on_train_end(self, trainer: Trainer, *_: Any) -> None:
            self.note("end", trainer)

    at, last = AtHooks(), AtBatches(internals.is_last_batch)
    fit(ValidatedNet(), tmp_path, at, last, epochs=2)
    assert last.ends == [batch == BATCHES - 1 for _ in range(2) for batch in range(BATCHES)]
    assert at.between["start"] == [True] and at.between["batch"] == last.ends
    assert at.within == {"start": [False], "batch": [True] * 2 * BATCHES, "epoch end": [False] * 2, "end": [False]}


def test_create_epoch_iterator_starts_the_loader_again(tmp_path) -> None:
    class Restarting(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            before = loader.num_iterators
            internals.create_epoch_iterator(trainer)
            self.created = loader.num_iterators - before

    class Counting(Loader):
        num_iterators = 0

        def __iter__(self) -> Iterator[Any]:
            self.num_iterators += 1
            return super().__iter__()

    loader, restarting = Counting(), Restarting()
    fit(ValidatedNet(), tmp_path, restarting, loader=loader, epochs=1)
    assert restarting.created == 1


# The length of an epoch


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        yield from Loader()


def loader_of(num_batches: int) -> DataLoader:
    data = Loader(num_batches)
    return DataLoader(TensorDataset(data.inputs.flatten(0, 1), data.targets.flatten()), batch_size=8)


@pytest.mark.parametrize(
    ("make_loader", "arguments", "expected"),
    [
        (lambda: loader_of(7), {}, 7),
        (lambda: loader_of(7), {"limit_train_batches": 3}, 3),
        (lambda: loader_of(7), {"limit_train_batches": 0.5}, 3),
        (lambda: {"a": loader_of(3), "b": loader_of(5)}, {}, 5),
        (lambda: internals.CombinedLoader([loader_of(3), loader_of(5)], "min_size"), {}, 3),
        (lambda: DataLoader(Endless(), batch_size=None), {}, math.inf),
    ],
    ids=["loader", "limited number", "limited fraction", "several", "the shortest", "no length"],
)
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_batches_per_epoch_are_lightning_s(tmp_path, make_loader, arguments, expected) -> None:
    found: dict[str, Any] = {}

    def configure(module: Any) -> Any:
        found["ours"] = internals.batches_per_epoch(module.trainer)
        module.trainer.fit_loop.setup_data()
        found["lightning"] = module.trainer.num_training_batches
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(Net(configure), tmp_path, loader=make_loader(), epochs=1, **arguments)
    assert found == {"ours": expected, "lightning": expected}


# Metrics that are reduced over an epoch


def test_epoch_metrics_accumulate_the_logged_values(tmp_path) -> None:
    at = AtBatches(lambda trainer: [(key, metric, metric.partials) for key, metric in internals.epoch_metrics(trainer)])
    module = ValidatedNet()
    trainer = fit(module, tmp_path, at, epochs=1)
    for count, found in enumerate(at.ends, start=1):
        assert [key for key, *_ in found] == [f"training_step.{metric.name}" for _, metric, _ in found]
        metrics = {metric.name: (metric, partials) for _, metric, partials in found}
        # In one process; `test_ddp.py` resumes synced metrics.
        assert not any(metric.is_synced for metric, _ in metrics.values())
        assert metrics.keys() == {"mean", "sum", "min", "max", "synced"}
        values = torch.tensor(module.batch_values[:count])
        sizes = torch.arange(1, count + 1)
        expected = {
            "mean": {"value": (values * sizes).sum(), "cumulated_batch_size": sizes.sum()},
            "sum": {"value": values.sum()},
            "min": {"value": values.min()},
            "max": {"value": values.max()},
        }
        for name, partials in expected.items():
            assert metrics[name][0].reduction == name
            torch.testing.assert_close(metrics[name][1], partials)
    logged = {name: trainer.callback_metrics[name] for name in ("mean", "sum", "min", "max")}
    final = {name: p["value"] / p.get("cumulated_batch_size", 1) for name, p in expected.items()}
    torch.testing.assert_close(logged, final)


def test_a_replaced_partial_is_in_the_logged_metric(tmp_path) -> None:
    class Replace(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == BATCHES - 1:
                dict(internals.epoch_metrics(trainer))["training_step.sum"].set_partial("value", torch.tensor(7.0))

    assert fit(ValidatedNet(), tmp_path, Replace(), epochs=1).callback_metrics["sum"] == 7


# Resuming after a batch


def saved_at_each_step(folder: Path, *callbacks: Callback, **arguments: Any) -> tuple[Trainer, ValidatedNet]:
    torch.manual_seed(0)
    module = ValidatedNet()
    return fit(module, folder, *callbacks, epochs=2, save=True, num_sanity_val_steps=0, **arguments), module


def test_what_follows_a_batch(tmp_path) -> None:
    """Checkpoints are written at the end of a batch, before the validation that follows it."""
    at = AtSave(lambda t: (internals.is_between_batch_and_validation(t), internals.validation_is_due(t)))
    saved_at_each_step(tmp_path, at, val_check_interval=2)
    assert at.values == [(True, False), (True, True)] * BATCHES
    after = AtSave(internals.is_between_batch_and_validation)
    saving = ModelCheckpoint(tmp_path / "epochs", save_on_train_epoch_end=True)
    fit(ValidatedNet(), tmp_path, after, saving, epochs=2, enable_checkpointing=True)
    assert after.values == [False, False]


def edited(checkpoint: Path, edit: Callable[[Any], None]) -> Path:
    state = torch.load(checkpoint, weights_only=False)
    edit(state)
    path = checkpoint.with_name("edited.ckpt")
    torch.save(state, path)
    return path


def test_resume_in_validation_runs_the_validation_that_was_due(tmp_path) -> None:
    _, full = saved_at_each_step(tmp_path, val_check_interval=2)
    checkpoint = tmp_path / f"step={BATCHES // 2}.ckpt"
    counts = {}
    for name, edit in {"as saved": lambda state: None, "edited": saved_loops.resume_in_validation}.items():
        module = ValidatedNet()
        fit(module, tmp_path, epochs=2, ckpt_path=edited(checkpoint, edit), val_check_interval=2)
        assert equal(module.state_dict(), full.state_dict()), name
        counts[name] = module.num_validations
    assert counts == {"as saved": full.num_validations - 1, "edited": full.num_validations}


class Ends(Callback):
    """The batches and the ends of epochs, in order."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.events: list[str] = []

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        if self.skip:
            internals.skip_remaining_batches(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.events.append(f"step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.skip:
            internals.stop_skipping_batches(trainer)
            self.skip = False
        self.events.append(f"end {trainer.current_epoch}")


def test_resume_at_epoch_end_ends_the_epoch_and_goes_on(tmp_path) -> None:
    ends = Ends()
    _, full = saved_at_each_step(tmp_path, ends, limit_val_batches=0)
    checkpoint, module, resumed = tmp_path / f"step={BATCHES}.ckpt", ValidatedNet(), Ends(skip=True)
    path = edited(checkpoint, saved_loops.resume_at_epoch_end)
    trainer = fit(module, tmp_path, resumed, epochs=2, ckpt_path=path, limit_val_batches=0)
    assert resumed.events == ends.events[BATCHES:] == ["end 0", *(f"step {BATCHES + n + 1}" for n in range(4)), "end 1"]
    assert equal(module.state_dict(), full.state_dict())
    assert internals.logger_step(trainer) == trainer.global_step == 2 * BATCHES
    # Without the edit, Lightning never runs the end of epoch 0.
    unedited = Ends()
    fit(ValidatedNet(), tmp_path, unedited, epochs=2, ckpt_path=checkpoint, limit_val_batches=0)
    assert "end 0" not in unedited.events


def test_resume_at_epoch_start_trains_the_epoch_that_began(tmp_path) -> None:
    """Without the edit, Lightning takes the batches of the epoch before for those of the new one, and ends it."""

    class SaveAtStart(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"start {trainer.current_epoch}.ckpt", weights_only=False)

    torch.manual_seed(0)
    full = ValidatedNet()
    fit(full, tmp_path, SaveAtStart(), epochs=3, num_sanity_val_steps=0)
    for epoch in (0, 1, 2):
        path = edited(tmp_path / f"start {epoch}.ckpt", saved_loops.resume_at_epoch_start)
        module, resumed = ValidatedNet(), Ends()
        trainer = fit(module, tmp_path, resumed, epochs=3, ckpt_path=path)
        assert equal(module.state_dict(), full.state_dict()), epoch
        assert internals.logger_step(trainer) == trainer.global_step == 3 * BATCHES
    unedited = Ends()
    fit(ValidatedNet(), tmp_path, unedited, epochs=3, ckpt_path=tmp_path / "start 2.ckpt")
    assert unedited.events == ["end 2"]


def test_resume_at_epoch_start_leaves_other_checkpoints_alone(tmp_path) -> None:
    saved_at_each_step(tmp_path)
    for step in (1, BATCHES):
        checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=False)
        before = copy.deepcopy(checkpoint["loops"])
        saved_loops.resume_at_epoch_start(checkpoint)
        assert checkpoint["loops"] == before


class BeginEpoch(Ends):
    """Begins an epoch that Lightning would not, after a resume; notes those that begin."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        internals.begin_uncounted_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.events.append(f"start {trainer.current_epoch}")


def test_begin_uncounted_epoch_begins_the_one_after_the_last_batch_of_another(tmp_path) -> None:
    """Lightning alone begins none then, and counts as many epochs processed as begun; see `resumed_epoch.py`."""
    read = lambda trainer: list(vars(trainer.fit_loop.epoch_progress.current).values())  # noqa: E731
    saved_at_each_step(tmp_path)
    for step, starts in ((BATCHES, ["start 1"]), (BATCHES + 1, []), (BATCHES - 1, ["start 1"])):
        begin, counts = BeginEpoch(), AtBatches(read)
        fit(ValidatedNet(), tmp_path, begin, counts, epochs=2, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert [event for event in begin.events if "start" in event] == starts, step
        assert counts.ends[-1] == [2, 1, 2, 1]  # ready, completed, started, processed
    unedited = AtBatches(read)
    fit(ValidatedNet(), tmp_path, unedited, epochs=2, ckpt_path=tmp_path / f"step={BATCHES}.ckpt")
    assert unedited.ends[-1] == [1, 1, 1, 1]


class AtEveryHook(Callback):
    """What `read(trainer)` returns in the second epoch, by hook."""

    def __init__(self, read: Callable[[Trainer], Any]) -> None:
        self.read = read
        self.values: dict[str, list[Any]] = {}

    def note(self, hook: str, trainer: Trainer) -> None:
        if trainer.current_epoch == 1:
            self.values.setdefault(hook, []).append(self.read(trainer))

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.note("epoch start", trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.note("batch start", trainer)

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        self.note("backward", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("batch end", trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("validation batch", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("validation end", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("epoch end", trainer)


def test_position_in_a_batch_a_validation_and_the_end_of_an_epoch(tmp_path) -> None:
    def read(trainer: Trainer) -> Any:
        batch = internals.current_batch(trainer), internals.total_batches(trainer)
        return internals.is_within_batch(trainer), internals.is_ending_epoch(trainer), batch

    at = AtEveryHook(read)
    fit(ValidatedNet(), tmp_path, at, epochs=2)
    batches = [(batch, BATCHES + batch + 1) for batch in range(BATCHES)]
    assert at.values == {
        "epoch start": [(False, False, (BATCHES - 1, BATCHES))],
        "batch start": [(True, False, batch) for batch in batches],
        "backward": [(True, False, batch) for batch in batches],
        "batch end": [(False, False, batch) for batch in batches],
        "validation batch": [(False, False, batches[-1])] * 2,
        "validation end": [(False, False, batches[-1])],
        "epoch end": [(False, True, batches[-1])],
    }


def test_a_validation_without_a_batch_left(tmp_path) -> None:
    at = AtEveryHook(internals.has_validated_all_batches)
    fit(ValidatedNet(), tmp_path, at, epochs=2)
    assert at.values["validation batch"] == [False, False], "the second has not ended"
    assert at.values["validation end"] == [True]


def test_metrics_of_an_epoch_are_those_that_training_has_logged_in_it(tmp_path) -> None:
    class EndNet(ValidatedNet):
        def on_train_epoch_end(self) -> None:
            self.log("end", 1.0)

    at = AtEveryHook(internals.metrics_of_epoch)
    fit(EndNet(), tmp_path, at, epochs=2)
    logged = {"mean", "sum", "min", "max", "synced", "batch"}
    every = {f"{name}{suffix}" for name in logged for suffix in ("", "_step", "_epoch")}
    assert at.values["batch start"][0] == set(), "not those of the epoch before"
    assert at.values["epoch end"] == [every], "`end` of the epoch before does not count"


# Tuners


class TunedNet(ValidatedNet):
    def __init__(self) -> None:
        super().__init__()
        self.learning_rate = 0.5


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_training_batches|non-finite)")
def test_what_a_tuner_has_set_and_leaves_behind(tmp_path) -> None:
    found: dict[str, Any] = {}

    class After(Callback):
        def on_fit_start(self, trainer: Trainer, module: Any) -> None:
            found["set"] = internals.tuned_lr(module, finder)
            found["loaders"] = trainer.fit_loop._combined_loader, trainer.ckpt_path
            found["metrics"] = set(trainer.callback_metrics)
            internals.forget_tuning(trainer)
            found["forgotten"] = trainer.fit_loop._combined_loader, trainer.ckpt_path, set(trainer.callback_metrics)

    finder = LearningRateFinder(num_training_steps=20, early_stop_threshold=None)
    module = TunedNet()
    fit(module, tmp_path, finder, After(), loader=loader_of(24), epochs=1)
    assert found["set"] == ("learning_rate", module.learning_rate) and module.learning_rate != 0.5
    assert internals.has_tuned_lr(module, "learning_rate", module.learning_rate)
    assert not internals.has_tuned_lr(module, "learning_rate", 0.5)
    assert None not in found["loaders"] and found["metrics"]
    assert found["forgotten"] == (None, None, set())
    finder._update_attr = False
    assert internals.tuned_lr(module, finder) is None


def test_isolated_rng_restores_the_generators() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with internals.isolated_rng():
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_waits_for_training_state_until_the_checkpoint_is_loaded(tmp_path) -> None:
    class AtStarts(Callback):
        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            self.found = [internals.waits_for_training_state(trainer)]

        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            self.found.append(internals.waits_for_training_state(trainer))

    saved_at_each_step(tmp_path)
    for path, expected in ((None, [False, False]), (tmp_path / "step=4.ckpt", [True, False])):
        at = AtStarts()
        fit(ValidatedNet(), tmp_path, at, epochs=2, ckpt_path=path)
        assert at.found == expected


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_has_optimizers_where_the_module_returns_any(tmp_path) -> None:
    for module, expected in ((Net(lambda module: None), False), (ValidatedNet(), True)):
        assert internals.has_optimizers(fit(module, tmp_path, epochs=1)) is expected


# Checkpoint files


def test_callback_state_is_read_from_a_file_and_from_a_distributed_checkpoint(tmp_path) -> None:
    class Stateful(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"value": torch.arange(3)}

    stateful, file = Stateful(), tmp_path / "step=2.ckpt"
    saved_at_each_step(tmp_path, stateful)
    state = internals.callback_state(file, stateful.state_key, True)
    assert equal(state, {"value": torch.arange(3)})
    assert internals.callback_state(file, "Other", True) is None
    assert internals.METADATA_FILE == model_parallel._METADATA_FILENAME
    (tmp_path / "distributed").mkdir()
    checkpoint = torch.load(file, weights_only=False)
    torch.save(checkpoint, tmp_path / "distributed" / model_parallel._METADATA_FILENAME)
    assert equal(internals.callback_state(tmp_path / "distributed", stateful.state_key, False), state)


def test_the_first_method_that_is_called_with_the_path_of_a_checkpoint(tmp_path) -> None:
    class Started(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            connector = internals.checkpoint_connector(trainer)
            assert connector.resume_start.__self__ is connector
            original, self.paths = connector.resume_start, []
            connector.resume_start = lambda path, *args, **kwargs: [
                self.paths.append((path, trainer.ckpt_path)), original(path, *args, **kwargs)
            ]  # fmt: skip

    saved_at_each_step(tmp_path)
    started = Started()
    fit(ValidatedNet(), tmp_path, started, epochs=1, ckpt_path=tmp_path / "step=2.ckpt")
    assert started.paths == [(tmp_path / "step=2.ckpt", None)]  # the trainer does not know it yet


def test_which_checkpoint_plugins_read_files_of_torch() -> None:
    class Mine(CheckpointIO):
        save_checkpoint = load_checkpoint = remove_checkpoint = None  # type: ignore[assignment]

    Mine.__abstractmethods__ = frozenset()
    for plugin, expected in (
        (None, True), (TorchCheckpointIO(), True), (AsyncCheckpointIO(), True), (AsyncCheckpointIO(Mine()), False),
        (Mine(), False),
    ):  # fmt: skip
        trainer = Trainer(accelerator="cpu", logger=False, plugins=[plugin] if plugin else [])
        assert internals.reads_torch_files(trainer) is expected, plugin


RULES = {"biases": {"params": "*.bias", "weight_decay": 0}}
"""With them, the optimizer's order is another one than the module's."""


def rekeyed(state_dict: dict[str, Any], module: nn.Module) -> Any:
    return model_parallel._rekey_optimizer_state_if_needed(state_dict, module)


@pytest.mark.parametrize("implementation", ["own", "torch"])
def test_optimizer_states_by_name_gives_each_parameter_its_own(implementation) -> None:
    module = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
    optimizer = OptimizerFactory("adamw", lr=0.1, implementation=implementation, groups=RULES)(module)
    for number, param in enumerate(module.parameters()):
        param.grad = torch.full_like(param, float(number + 1))
    optimizer.step()
    saved = optimizer.state_dict()
    with internals.optimizer_states_by_name():
        found = rekeyed(saved, module)
        assert rekeyed(found, module)["state"].keys() == found["state"].keys()  # of one file of FSDP2
        plain = torch.optim.AdamW(module.parameters())
        assert rekeyed({**plain.state_dict(), "state": {0: {}}}, module)["state"].keys() == {"0.weight"}
    states = {name: optimizer.state[param] for name, param in module.named_parameters()}
    assert equal(found["state"], states)
    assert [set(group["params"]) for group in found["param_groups"]] == [{"0.weight", "1.weight"}, {"0.bias", "1.bias"}]
    assert not equal(rekeyed(saved, module)["state"], states)  # Lightning's own; if not: remove the function


def test_load_optimizer_states_by_name_is_what_a_module_without_callbacks_has(monkeypatch) -> None:
    def load_checkpoint(self: Any, path: str) -> bool:
        return model_parallel._rekey_optimizer_state_if_needed is not original

    original = model_parallel._rekey_optimizer_state_if_needed
    monkeypatch.setattr(ModelParallelStrategy, "load_checkpoint", load_checkpoint)
    trainer = Trainer(accelerator="cpu", devices=1, strategy=ModelParallelStrategy(1, 1), logger=False)
    assert not trainer.strategy.load_checkpoint("path")
    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.1)))
    module.trainer = trainer
    for _ in range(2):
        module.configure_optimizers()
        assert trainer.strategy.load_checkpoint("path")
        assert model_parallel._rekey_optimizer_state_if_needed is original
    loads = trainer.strategy.load_checkpoint
    internals.load_optimizer_states_by_name(trainer)
    assert trainer.strategy.load_checkpoint is loads
    plain = Trainer(accelerator="cpu", devices=1, logger=False)
    internals.load_optimizer_states_by_name(plain)
    assert "load_checkpoint" not in vars(plain.strategy)


def test_hooks_of_learning_rate_monitors_change_which_groups_are_logged(tmp_path) -> None:
    scheduled = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    shown = torch.optim.Adam([nn.Parameter(torch.ones(1))], lr=0.25)
    monitor = LearningRateMonitor()

    class Hooked(Callback):
        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            self.hooks = internals.hook_learning_rate_monitors(trainer, lambda driven: shown)

    hooked = Hooked()
    module = Net(lambda _: [[scheduled], [torch.optim.lr_scheduler.StepLR(scheduled, 1)]])
    fit(module, tmp_path, hooked, monitor, epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    assert set(monitor.lrs["lr-Adam"]) == {0.25}
    for hook in hooked.hooks:
        hook.remove()
    assert not {"_find_names_from_schedulers", "_get_optimizer_stats"} & set(vars(monitor))


def test_ddp_is_wrapped_again_for_a_static_graph_whose_first_step_is_still_to_come(tmp_path, monkeypatch) -> None:
    strategy = DDPStrategy(static_graph=True, ddp_comm_state="state", parallel_devices=[torch.device("cpu")])
    strategy.cluster_environment = LightningEnvironment()
    assert internals.ddp_comm_state(strategy) == "state"
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        strategy.model = Net(lambda module: None)
        strategy.configure_ddp()
        first = strategy.model
        strategy._pl_static_graph_delay_done = True  # as after a step under manual optimization
        sent: list[Any] = []
        monkeypatch.setattr("torch.nn.parallel.distributed._sync_module_states", lambda **given: sent.append(given))
        internals.wrap_in_ddp_again(strategy)
        assert strategy.model is not first and strategy.model.module is first.module
        assert strategy.model.static_graph and not strategy._pl_static_graph_delay_done
        assert sent == [], "rank zero's weights and buffers"
        assert strategy._ddp_kwargs == {"static_graph": True}
    finally:
        torch.distributed.destroy_process_group()


def test_every_function_is_tested_here() -> None:
    functions = [node.name for node in parse(INTERNALS).body if isinstance(node, ast.FunctionDef)]
    used = {node.attr for node in ast.walk(parse(Path(__file__))) if isinstance(node, ast.Attribute)}
    assert [name for name in functions if name not in used and not is_private(name)] == []


# No other module uses a private name of Lightning

DOCUMENTED_MODULES = {
    "lightning.pytorch",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.utilities.types",
}
LIGHTNING_ROOMS = ("callbacks", "cli")
"""Rooms that may import Lightning; the others get only what these pass to them."""
LOOPS = {"fit_loop", "epoch_loop", "val_loop"}
"""Undocumented, so as good as private."""
LIGHTNING_OBJECTS = {"trainer", "pl_module", "strategy", *LOOPS}
"""Names of variables and attributes that hold an object of Lightning."""
TORCH_NAMES = {"_modules", "_no_weight_decay", "_parameters", "_schedulers"}
"""Private names of torch, and of models (Mamba marks parameters), that the package uses."""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def find_private_uses(source: str, *, may_import_lightning: bool = True) -> list[str]:
    """Imports of private or undocumented names of Lightning, and private attributes that are not the module's own.

    Args:
        source: the module's.
        may_import_lightning: if not, only attributes of objects that go by a Lightning name are found.
    """
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if _is_undocumented(alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [alias.name for alias in node.names if _is_lightning(node.module) and is_private(alias.name)]
            found += [f"{node.module}.{name}" for name in names]
            found += [str(node.module)] if _is_undocumented(str(node.module)) else []
        elif isinstance(node, ast.Attribute):
            is_lightning = bool(LIGHTNING_OBJECTS & set(_words(node.value)))
            is_foreign = is_lightning or (may_import_lightning and node.attr not in own | TORCH_NAMES)
            if node.attr in LOOPS or (is_private(node.attr) and is_foreign):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in own | TORCH_NAMES:
                found.append(ast.unparse(node))
    return found


def _is_lightning(module: str | None) -> bool:
    return str(module).split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric")


def _is_undocumented(module: str) -> bool:
    return _is_lightning(module) and module not in DOCUMENTED_MODULES


def _words(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr.lstrip("_")


@pytest.mark.slow
def test_only_lightning_internals_uses_private_names_of_lightning() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path != INTERNALS]
    assert len(modules) > 100
    found = {}
    for path in modules:
        room = path.relative_to(PACKAGE).parts[0]
        uses = find_private_uses(path.read_text(encoding="utf-8"), may_import_lightning=room in LIGHTNING_ROOMS)
        if uses:
            found[str(path.relative_to(PACKAGE))] = uses
    assert found == {}


@pytest.mark.parametrize(
    ("source", "anywhere"),
    [
        ("trainer._logger_connector", True),
        ("self._trainer.fit_loop", True),
        ("epoch_loop._results", True),
        ("trainer.strategy._lightning_module", True),
        ("getattr(trainer, '_run', None)", True),
        ("module._log_hyperparams", False),
        ("from lightning.pytorch.trainer.call import _call_setup_hook", True),
        ("from lightning.pytorch.loops import _FitLoop", True),
        ("from lightning.pytorch.trainer.states import TrainerFn", True),
        ("import lightning.fabric.utilities.data", True),
    ],
)
def test_the_check_finds_private_names(source, anywhere) -> None:
    assert find_private_uses(source)
    assert bool(find_private_uses(source, may_import_lightning=False)) is anywhere


def test_the_check_finds_those_of_lightning_internals() -> None:
    found = find_private_uses(INTERNALS.read_text(encoding="utf-8"))
    names = ("_batches_that_stepped", "_logger_connector", "_should_accumulate", "_data_fetcher", "_trainer")
    assert [name for name in names if not any(name in use for use in found)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from lightning.pytorch import Callback, LightningModule, Trainer",
        "trainer.strategy.broadcast(1)",
        "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x",
        "type(trainer).__name__",
    ],
    ids=["documented import", "public attribute", "own attribute", "dunder"],
)
def test_the_check_allows_public_and_own_names(source) -> None:
    assert find_private_uses(source) == []
