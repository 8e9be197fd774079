"""Each group as a run of TensorBoard: the values of the flat tags, one file and one thread a group, all closed."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from re import search
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.telemetry import group_runs
from lightning_optim.telemetry.group_runs import group_curve
from lightning_optim.telemetry.tags import is_setting, scalar_layout
from tests.support.tensorboard_events import Curves, fit_with_events, from_step, read_curves, read_runs
from tests.support.training import BATCHES, Loader, Net, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
GROUPS = {"no_decay": {"kinds": ["bias"], "weight_decay": 0.0}, "head": {"params": "head", "lr_scale": 2}}
OPTIONS = {"update_norm": True, "per_parameter": True}


def configured(**arguments: Any) -> Any:
    factory = OptimizerFactory("adamw", lr=0.01, **arguments)
    return lambda module: configure_optimizers(module, factory, SchedulerFactory("cosine_annealing"))


def by_run(folder: Path) -> dict[str, Curves]:
    """The curves of each run of the only logger below a folder."""
    return read_runs(next(folder.rglob("version_0")))


def flat(runs: dict[str, Curves]) -> Curves:
    """The curves of all runs under the flat tags."""
    groups = {run.rpartition("/")[2]: curves for run, curves in runs.items() if run != "."}
    return {f"{tag}/{group}": points for group, curves in groups.items() for tag, points in curves.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same staged run with and without the overlay."""
    folders = {}
    for overlay in (False, True):
        folders[overlay] = tmp_path_factory.mktemp(f"overlay_{overlay}")
        monitor = OptimizerMonitor(overlay=overlay, **OPTIONS)
        torch.manual_seed(0)
        fit_with_events(folders[overlay], Net(configured()), StagedUnfreeze(PLAN), monitor)
    return folders


def test_each_group_is_a_run_with_the_values_of_the_flat_tags(written) -> None:
    runs, expected = by_run(written[True]), read_curves(written[False])
    assert set(runs) == {".", "optim/all", "optim/head", "optim/backbone"}
    of_groups = {tag: points for tag, points in expected.items() if tag.startswith("optim/")}
    assert flat(runs) == of_groups
    assert len(runs["optim/backbone"]["optim/lr"]) == 3 * BATCHES  # it joins after an epoch
    of_parameters = {tag for tag in expected if tag.startswith("optim_param/")}
    assert of_parameters
    assert {tag for tag in runs["."] if tag.startswith("optim")} == of_parameters


def test_other_loggers_have_the_flat_tags_and_the_same_points(tmp_path) -> None:
    loggers = [TensorBoardLogger(tmp_path / "events"), CSVLogger(tmp_path / "csv")]
    factory = OptimizerFactory("sgd", lr=0.01, momentum=0.9)
    net = Net(lambda module: configure_optimizers(module, factory, SchedulerFactory("one_cycle")))
    fit(net, tmp_path, OptimizerMonitor(**OPTIONS), epochs=2, logger=loggers, log_every_n_steps=1)
    found: Curves = {}
    with next(tmp_path.rglob("metrics.csv")).open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for tag, value in row.items():
                if value and tag.startswith("optim"):
                    found.setdefault(tag, []).append((int(row["step"]), float(value)))
    curves = read_curves(tmp_path / "events")
    assert set(found) == {tag for tag in curves if tag.startswith("optim")}
    for tag, points in found.items():  # event files hold float32
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in curves[tag]], tag
    assert len(found["optim/momentum/default"]) > len(found["optim/weight_decay/default"]) == 1


def test_all_files_are_closed_after_the_fit(tmp_path) -> None:
    before, counts = threading.active_count(), []

    class Count(OptimizerMonitor):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_end(trainer, pl_module)
            counts.append(threading.active_count() - before)

    fit_with_events(tmp_path, Net(configured(groups=GROUPS)), Count(), epochs=1)
    num_groups = len({path.parent for path in tmp_path.rglob("events.*")}) - 1
    assert num_groups == 4 + 1  # and `all`
    assert counts == [1 + 1], "one thread for all groups, beside that of the logger's own writer"
    assert threading.active_count() == before


def test_a_resumed_run_goes_on_with_the_next_point(tmp_path) -> None:
    def run(folder: Path, **arguments: Any) -> None:
        torch.manual_seed(0)
        callbacks = [RNGState(), StagedUnfreeze(PLAN), OptimizerMonitor()]
        fit_with_events(folder, Net(configured()), *callbacks, save=True, **arguments)

    run(tmp_path / "full")
    checkpoint = next((tmp_path / "full").glob(f"step={BATCHES + 1}*.ckpt"))
    run(tmp_path / "resumed", ckpt_path=checkpoint)
    full, resumed = flat(by_run(tmp_path / "full")), flat(by_run(tmp_path / "resumed"))
    assert resumed == from_step(full, BATCHES + 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers|is not empty|training batches).*")  # of the second fit
def test_a_run_resumed_in_the_same_folder_hides_the_points_after_its_checkpoint(tmp_path) -> None:
    def run(folder: Path, purge_step: int | None = None, **arguments: Any) -> Any:
        torch.manual_seed(0)
        logger = TensorBoardLogger(folder, version=0, purge_step=purge_step)
        callbacks = [RNGState(), StagedUnfreeze(PLAN), OptimizerMonitor()]
        return fit(Net(configured()), folder, *callbacks, save=True, logger=logger, log_every_n_steps=1, **arguments)

    def as_tensorboard_reads(folder: Path) -> dict[str, Curves]:
        found = {}
        for run in {path.parent for path in folder.rglob("events.*")}:
            events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
            found[run.name] = {
                tag: [(event.step, event.value) for event in events.Scalars(tag)]
                for tag in events.Tags()["scalars"]
                if tag.startswith("optim/") and not is_setting(tag.removeprefix("optim/"))
            }
        return found

    run(tmp_path)
    expected = as_tensorboard_reads(tmp_path)
    checkpoint, done = next(tmp_path.glob(f"step={BATCHES + 1}.ckpt")), BATCHES + 1
    trainer = run(tmp_path, done, ckpt_path=checkpoint)
    assert as_tensorboard_reads(tmp_path) == expected
    # A second fit hides nothing.
    trainer.fit_loop.max_epochs = 5
    trainer.fit(trainer.lightning_module, Loader())
    points = as_tensorboard_reads(tmp_path)["head"]["optim/lr"]
    assert [step for step, _ in points] == list(range(5 * BATCHES))
    decay = read_curves(tmp_path)["optim/weight_decay/head"]
    assert [step for step, _ in decay] == [0, done, 4 * BATCHES], "each fit has the first value"


def test_each_of_two_loggers_has_all_runs_and_a_closed_writer_is_opened_again(tmp_path) -> None:
    class CloseWriter(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                for logger in trainer.loggers:
                    logger.experiment.close()

    loggers = [TensorBoardLogger(tmp_path / name, sub_dir=sub) for name, sub in (("one", None), ("two", "events"))]
    monitor = OptimizerMonitor(per_parameter=True)
    fit(Net(configured()), tmp_path, CloseWriter(), monitor, epochs=1, logger=loggers, log_every_n_steps=1)
    one, two = (read_curves(tmp_path / name) for name in ("one", "two"))
    assert one == two and set(by_run(tmp_path / "one")) == {".", "optim/all", "optim/default"}
    assert [step for step, _ in one["optim/lr/default"]] == list(range(BATCHES))
    assert [step for step, _ in one["optim_param/norm/grad/head.bias"]] == list(range(BATCHES))


def test_the_groups_of_several_optimizers_are_told_apart(tmp_path) -> None:
    class Manual(Net):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.head.parameters(), 0.1), torch.optim.Adam(self.backbone.parameters(), 0.2)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

    fit_with_events(tmp_path, Manual(lambda module: None), OptimizerMonitor(), epochs=1)
    runs = by_run(tmp_path)
    assert set(runs) == {".", *(f"optim_{name}/{group}" for name in ("sgd", "adam") for group in ("default", "all"))}
    assert runs["optim_sgd/default"]["optim_sgd/lr"] == [(step, pytest.approx(0.1)) for step in range(BATCHES)]
    assert not [tag for tag in runs["optim_sgd/default"] if tag.startswith("optim_adam")]


def test_files_are_closed_after_an_exception_which_a_full_disk_does_not_hide(tmp_path, monkeypatch) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        fit_with_events(tmp_path / "failed", Net(configured()), OptimizerMonitor(), Fail())
    assert threading.active_count() == before
    assert [step for step, _ in read_curves(tmp_path / "failed")["optim/lr/default"]] == [0, 1, 2]

    def write(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("lightning_optim.telemetry.run_writer._RunFile.flush", write)
    with pytest.raises(ZeroDivisionError):
        fit_with_events(tmp_path / "full", Net(configured()), Fail(), OptimizerMonitor(every_n_steps=3))
    with monkeypatch.context() as patch:
        patch.setattr("lightning_optim.telemetry.snapshot.Snapshot.is_ready", False)  # it is still to be written
        patch.setattr("lightning_optim.telemetry.run_writer.RunWriter.write", write)
        with pytest.raises(ZeroDivisionError):
            fit_with_events(tmp_path / "pending", Net(configured()), OptimizerMonitor(), Fail())
    with pytest.raises(OSError, match="could not be written: no space left"):
        fit_with_events(tmp_path / "disk", Net(configured()), OptimizerMonitor())
    assert threading.active_count() == before


def test_a_checkpoint_has_all_points_before_it_on_disk(tmp_path) -> None:
    counts = []

    class Killed(OptimizerMonitor):
        def on_save_checkpoint(self, *args: Any) -> None:
            super().on_save_checkpoint(*args)
            counts.append(len(read_curves(tmp_path)["optim/lr/default"]))

    fit_with_events(tmp_path, Net(configured()), Killed(), epochs=1, save=True)
    assert counts == list(range(1, BATCHES + 1))


def test_groups_after_the_last_run_stay_in_the_loggers_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(group_runs, "MAX_RUNS", 2)
    fit_with_events(tmp_path, Net(configured(groups=GROUPS)), OptimizerMonitor(), epochs=1)
    runs = by_run(tmp_path)
    assert len(runs) == 3
    in_own = {tag.rpartition("/")[2] for tag in runs["."] if tag.startswith("optim/lr/")}
    assert len(in_own) == 4 - 2 and not in_own & {run.rpartition("/")[2] for run in runs}


def test_groups_whose_names_would_be_the_same_folder_have_runs_of_their_own(tmp_path) -> None:
    # Some file systems do not tell the last two apart.
    names = ["a:b", "a_b", "A_B"]

    def configure(module: nn.Module) -> torch.optim.Optimizer:
        parameters = list(module.parameters())
        groups = [{"params": [parameters[i]], "name": name, "lr": i + 1.0} for i, name in enumerate(names)]
        return torch.optim.SGD(groups)

    fit_with_events(tmp_path, Net(configure), OptimizerMonitor(), epochs=1)
    runs = by_run(tmp_path)
    assert set(runs) == {".", "optim/all", "optim/a_b", "optim/a_b-2", "optim/A_B-2-2"}
    assert [runs[run]["optim/lr"][0][1] for run in ("optim/a_b", "optim/a_b-2", "optim/A_B-2-2")] == [1, 2, 3]


@pytest.mark.parametrize("name", ["../../elsewhere", "..", "/tmp", "a/b", "ä ö", "x" * 300])
def test_a_group_with_any_name_stays_below_the_loggers_folder(tmp_path, name) -> None:
    def configure(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(module.parameters()), "name": name}], lr=0.1)

    root = tmp_path / "a" / "b"
    fit_with_events(root, Net(configure), OptimizerMonitor(), epochs=1)
    (folder,) = {path.parent for path in tmp_path.rglob("events.*") if "optim" in path.parts} - set(
        root.rglob("optim/all")
    )
    assert folder.parent == next(root.rglob("version_0")) / "optim"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("head.no_decay", "head.no_decay"),
        ("..", "__"),
        ("a/../b", "a_.._b"),
        ("a\\b:\0", "a_b__"),
        ("层" * 90, "层" * 46),
    ],
)
def test_a_folder_has_no_character_that_means_something_to_a_file_system(name, folder) -> None:
    assert group_curve("optim", "lr", name) == (f"optim/{folder}", "optim/lr")


def test_charts_match_the_tags_of_both_kinds_of_runs() -> None:
    (pattern,) = scalar_layout({"optim": ["norm/grad"]}, overlay=True)["optim"]["norm/grad"][1]
    assert search(pattern, "optim/norm/grad") and search(pattern, "optim/norm/grad/head")
    assert not search(pattern, "optim/norm/grad_unclipped")
