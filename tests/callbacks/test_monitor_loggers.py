"""The same run in TensorBoard, W&B, MLflow and CSV files: with the real packages, offline, read back from the disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.telemetry.stores.store import find_stores
from tests.support.logger_stores import (
    assert_same_curves,
    fill_settings,
    read_csv,
    read_mlflow,
    read_mlflow_table,
    read_wandb,
)
from tests.support.tensorboard_events import Curves, read_curves, read_runs, read_texts
from tests.support.training import BATCHES, Net, fit

# MLflow's own use of pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes:DeprecationWarning")

PLAN = {
    "head": {"params": "head"},
    "top": {"params": "backbone.3", "at": {"epoch": 1}, "lr_scale": 0.1},
    "rest": {"params": "backbone", "at": {"epoch": 2}, "lr_scale": 0.1},
}
GROUPS = {"no_decay": {"kinds": ["bias"], "weight_decay": 0.0}}
NEED_PACKAGES = 'needs wandb, mlflow and pandas. Type pip install -e ".[loggers]" -c constraints.txt'
THAWS = [
    {"step": BATCHES, "epoch": 1, "stage": "top", "groups": "top, top.no_decay"},
    {"step": 2 * BATCHES, "epoch": 2, "stage": "rest", "groups": "rest, rest.no_decay"},
]
STOP = BATCHES + 1
"""The step after which a run is stopped: one of two thaws has been."""


@pytest.fixture(scope="module")
def offline() -> Iterator[None]:
    """W&B and MLflow write to files below the test's folder, and ask no server."""
    for package in ("wandb", "mlflow", "pandas"):
        pytest.importorskip(package, reason=NEED_PACKAGES)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false",
            "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        yield


class Run:
    """A run with all loggers.

    Args:
        folder: of all that it writes.
        resumes: another run, whose W&B run and MLflow run it continues.
        overlay: of the monitor.
    """

    def __init__(self, folder: Path, resumes: Run | None = None, *, lr: float = 0.01, overlay: bool = False) -> None:
        import wandb

        self.folder, self.uri = folder, resumes.uri if resumes else f"file:{folder / 'mlflow'}"
        folder.mkdir(parents=True, exist_ok=True)
        wandb_id = resumes.wandb_id if resumes else folder.name
        tracked = MLFlowLogger(tracking_uri=self.uri, run_id=resumes.run_id if resumes else None)
        watched = WandbLogger(save_dir=folder, id=wandb_id, offline=True)
        loggers: list[Logger] = [TensorBoardLogger(folder / "tb"), watched, tracked, CSVLogger(folder / "csv")]
        torch.manual_seed(0)
        factory, scheduler = OptimizerFactory("adamw", lr=lr, groups=GROUPS), SchedulerFactory("cosine_annealing")
        self.module = Net(lambda module: configure_optimizers(module, factory, scheduler))
        try:
            fit(
                self.module, folder, RNGState(), StagedUnfreeze(PLAN),
                OptimizerMonitor(update_norm=True, overlay=overlay), logger=loggers, log_every_n_steps=1, save=True,
                ckpt_path=next(resumes.folder.glob(f"step={STOP}*.ckpt")) if resumes else None,
            )  # fmt: skip
        finally:
            wandb.finish()
        self.run_id, self.wandb_id = str(tracked.run_id), wandb_id

    def curves(self) -> dict[str, Curves]:
        """By logger: what this run and no other has written."""
        return {
            "tensorboard": read_curves(self.folder / "tb"),
            "wandb": read_wandb(self.folder)[0],
            "mlflow": read_mlflow(self.uri, self.run_id),
            "csv": read_csv(self.folder / "csv"),
        }


@pytest.fixture(scope="module")
def full(offline, tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("full"))


def after_stop(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [point for point in points if point[0] is not None and point[0] >= STOP]


@pytest.mark.slow
def test_every_logger_holds_the_values_of_tensorboard(full) -> None:
    curves = full.curves()
    assert len(curves["tensorboard"]["optim/lr/top"]) == 3 * BATCHES
    for name in ("wandb", "mlflow", "csv"):
        assert_same_curves(curves[name], curves["tensorboard"])


@pytest.mark.slow
def test_the_overlay_holds_the_values_of_the_other_loggers(offline, tmp_path) -> None:
    run = Run(tmp_path, overlay=True)
    runs = read_runs(next(tmp_path.rglob("version_0")))
    groups = {name.rpartition("/")[2]: curves for name, curves in runs.items() if name != "."}
    flat = {f"{tag}/{group}": points for group, curves in groups.items() for tag, points in curves.items()}
    curves = run.curves()
    for name in ("wandb", "mlflow", "csv"):
        assert_same_curves(curves[name], flat)


@pytest.mark.slow
def test_the_curves_of_a_resumed_run_are_those_of_the_uninterrupted_one(offline, tmp_path) -> None:
    full = Run(tmp_path / "full")
    expected = {name: fill_settings(of_logger) for name, of_logger in full.curves().items()}
    curves = Run(tmp_path / "resumed", resumes=full).curves()
    # Both are one run of MLflow: the points after the stop are there twice.
    assert len(curves["mlflow"]["optim/lr/top"]) == 3 * BATCHES + (4 * BATCHES - STOP)
    once = {tag: sorted(set(points)) for tag, points in curves["mlflow"].items()}
    assert_same_curves(fill_settings(once), expected["mlflow"])
    for name in ("tensorboard", "wandb", "csv"):
        after = {tag: after_stop(points) for tag, points in expected[name].items()}
        assert_same_curves(fill_settings(curves[name]), after)
    # The panel of a table shows the last one: the thaw before the stop is in it.
    assert read_wandb(tmp_path / "resumed")[1]["optim/thaw"] == [(2 * BATCHES, THAWS)]


@pytest.mark.slow
def test_plan_groups_and_thaws_are_tables_of_wandb_and_mlflow(full) -> None:
    tables = read_wandb(full.folder)[1]
    ((step, plan),) = tables["optim/plan"]
    assert step == 0
    assert [row["thaws"] for row in plan] == ["from the start"] * 2 + ["epoch 1"] * 2 + ["epoch 2"] * 2 + [None]
    assert plan[2]["lr"] == pytest.approx(0.001) and plan[2]["parameters"] == 8 * 8
    assert [step for step, _ in tables["optim/groups"]] == [0, BATCHES, 2 * BATCHES]
    groups = ["head", "head.no_decay", "top", "top.no_decay", "all"]
    assert [row["group"] for row in tables["optim/groups"][1][1]] == groups
    assert tables["optim/thaw"] == [(BATCHES, THAWS[:1]), (2 * BATCHES, THAWS)]
    for tag, logged in tables.items():  # in TensorBoard they are text, at the same steps
        assert [step for step, _ in read_texts(full.folder / "tb", tag)] == [step for step, _ in logged]

    assert read_mlflow_table(full.uri, full.run_id, "optim/plan.json")[2]["lr"] == pytest.approx(0.001)
    rows = read_mlflow_table(full.uri, full.run_id, "optim/groups.json")
    assert [row["group"] for row in rows if row["step"] == BATCHES] == groups
    assert read_mlflow_table(full.uri, full.run_id, "optim/thaw.json") == THAWS


@pytest.mark.slow
def test_mlflow_keeps_the_hyperparameters_that_a_run_began_with(offline, tmp_path, caplog) -> None:
    from mlflow.tracking import MlflowClient

    full = Run(tmp_path / "full")
    with caplog.at_level("INFO", logger="lightning_optim"):
        Run(tmp_path / "resumed", resumes=full, lr=0.02)
    assert MlflowClient(full.uri).get_run(full.run_id).data.params["optim/head/lr"] == "0.01"
    assert "MLflow keeps the values that the run has begun with: optim/head/lr" in caplog.text
    rows = read_mlflow_table(full.uri, full.run_id, "optim/groups.json")
    assert [(row["step"], row["lr"]) for row in rows if row["group"] == "head"] == [
        (0, 0.01), (4, 0.01), (8, 0.01), (5, 0.02), (8, 0.02),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_picture_reaches_wandb_and_mlflow_as_an_image(offline, tmp_path) -> None:
    import wandb

    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    loggers = [WandbLogger(save_dir=tmp_path, offline=True), MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlflow'}")]
    try:
        stores = list(find_stores(loggers))
        assert len(stores) == len(loggers)
        for store in stores:
            store.write_picture("optim/depth/layers", picture, 7)
    finally:
        wandb.finish()
    files = [file for folder in ("wandb", "mlflow") for file in (tmp_path / folder).rglob("*layers*.png")]
    assert len(files) == 2
    for file in files:
        assert np.array_equal(np.asarray(Image.open(file)), picture)
    assert re.search("step[%+]7[%+]", files[1].name)  # how MLflow names a step


@pytest.mark.slow
def test_a_factory_among_the_hyperparameters_shows_its_call(offline, tmp_path) -> None:
    """WandbLogger calls what is callable: https://github.com/Lightning-AI/pytorch-lightning/issues/4380"""
    import wandb
    from mlflow.tracking import MlflowClient

    uri = f"file:{tmp_path / 'mlflow'}"
    watched, tracked = WandbLogger(save_dir=tmp_path, offline=True), MLFlowLogger(tracking_uri=uri)
    try:
        for logger in (watched, tracked):
            logger.log_hyperparams({"optimizer": OptimizerFactory("adamw", lr=3e-4), "width": 8})
        assert watched.experiment.config["optimizer"] == "OptimizerFactory('adamw', lr=0.0003)"
    finally:
        wandb.finish()
    params = MlflowClient(uri).get_run(tracked.run_id).data.params
    assert params == {"optimizer": "OptimizerFactory('adamw', lr=0.0003)", "width": "8"}
