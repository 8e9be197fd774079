"""The groups' hyperparameters at the loggers: plain values, also of groups that join, and none with `hparams=False`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_optim import OptimizerFactory, OptimizerMonitor, StagedUnfreeze, configure_optimizers
from lightning_optim.telemetry.hparams import collect_hyperparameters
from tests.support.tensorboard_events import read_curves
from tests.support.training import BATCHES, Net, fit


class Named(Net):
    """Has a hyperparameter of its own, and passes all further ones on, as `load_from_checkpoint` gives them."""

    def __init__(self, width: int = 7, **configure: Any) -> None:
        super().__init__(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.01)), **configure)
        self.save_hyperparameters("width")


def read_yaml(folder: Path) -> dict[str, Any]:
    """The only `hparams.yaml` below a folder."""
    (file,) = folder.rglob("hparams.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("logger", [TensorBoardLogger, CSVLogger])
def test_hparams_false_leaves_the_loggers_hyperparameters_alone(tmp_path, logger) -> None:
    class Refuse(logger):
        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            assert set(params) == {"width"}, "Lightning's own call"
            super().log_hyperparams(params, *args, **kwargs)

    monitor = OptimizerMonitor(hparams=False)
    trainer = fit(Named(), tmp_path, monitor, epochs=1, save=True, logger=Refuse(tmp_path), log_every_n_steps=1)
    assert read_yaml(tmp_path) == {"width": 7}
    (hparams,), checkpoint = tmp_path.rglob("hparams.yaml"), trainer.checkpoint_callback.best_model_path
    assert Named.load_from_checkpoint(checkpoint, hparams_file=hparams).hparams == {"width": 7}


def test_hparams_false_writes_no_hp_metric(tmp_path) -> None:
    module = Net(lambda module: torch.optim.SGD(module.parameters(), 0.1))
    for hparams in (False, True):
        folder = tmp_path / str(hparams)
        fit(module, folder, OptimizerMonitor(1, hparams=hparams), epochs=1, logger=TensorBoardLogger(folder))
        assert ("hp_metric" in read_curves(folder)) == hparams


def test_stored_values_are_plain(tmp_path) -> None:
    class Mode(str, Enum):
        FAST = "fast"

    def configure(module: Any) -> torch.optim.Optimizer:
        betas = (np.float64(0.5), np.float64(0.75))
        return torch.optim.Adam(module.parameters(), lr=torch.tensor(0.5), betas=betas, eps=np.float32(0.25))

    fit(Net(configure), tmp_path, OptimizerMonitor(1), epochs=1, logger=CSVLogger(tmp_path))
    (file,) = tmp_path.rglob("hparams.yaml")
    assert "!!python" not in file.read_text(encoding="utf-8")
    expected = {"lr": 0.5, "weight_decay": 0.0, "eps": 0.25, "beta1": 0.5, "beta2": 0.75}
    found = read_yaml(tmp_path)
    assert {name: found[f"optim/default/{name}"] for name in expected} == expected
    group = SimpleNamespace(name="a", algorithm=Mode.FAST, lr_scale=1, hyperparameters={"lr": np.int64(2)})
    plan: Any = SimpleNamespace(groups=[group])
    assert {type(value) for value in collect_hyperparameters("optim", plan).values()} == {str, float}


class Record(CSVLogger):
    """Notes each group whose hyperparameters it gets, with the step."""

    def __init__(self, folder: Path, module: Any) -> None:
        super().__init__(folder)
        self.module, self.groups = module, list[tuple[int, str]]()

    def log_hyperparams(self, params: Any = None) -> None:
        self.groups += sorted({(self.module.trainer.global_step, name.split("/")[1]) for name in params})
        super().log_hyperparams(params)


@pytest.mark.parametrize("hparams", [True, False])
def test_a_group_that_the_user_adds_is_logged_at_its_first_step(tmp_path, hparams) -> None:
    class AddGroup(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                added = {"params": list(pl_module.head.parameters()), "name": "added", "weight_decay": 0.25}
                trainer.optimizers[0].add_param_group(added)

    module = Net(lambda module: torch.optim.AdamW(module.backbone.parameters(), lr=0.01))
    loggers = [Record(tmp_path, module), TensorBoardLogger(tmp_path / "events")]
    fit(module, tmp_path, AddGroup(), OptimizerMonitor(1, hparams=hparams), epochs=3, logger=loggers)
    assert loggers[0].groups == ([(0, "default"), (BATCHES, "added")] if hparams else [])
    if hparams:
        assert read_yaml(tmp_path / "lightning_logs")["optim/added/weight_decay"] == 0.25
    assert read_curves(tmp_path / "events")["optim/weight_decay/added"] == [(BATCHES, 0.25)]


def test_groups_that_thaw_are_logged_at_the_start_only(tmp_path) -> None:
    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.01)))
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
    logger = Record(tmp_path, module)
    fit(module, tmp_path, StagedUnfreeze(plan), OptimizerMonitor(1), epochs=2, logger=logger)
    assert logger.groups == [(0, "backbone"), (0, "head")]
