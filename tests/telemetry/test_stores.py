"""What W&B and MLflow get for a table or picture; `tests/callbacks/test_monitor_loggers.py` has the real packages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_optim import OptimizerFactory
from lightning_optim.telemetry.loggers import write_hyperparameters, write_table
from lightning_optim.telemetry.stores import mlflow as mlflow_store
from lightning_optim.telemetry.stores.store import find_stores
from lightning_optim.telemetry.stores.table import LoggedTable

TABLE = LoggedTable(columns=("group", "lr"), rows=(("head", 0.1), ("top", None)), markdown="| ... |", num_logged=1)
PICTURE = np.zeros((2, 3, 3), dtype=np.uint8)


def load(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Put a module with these contents where Python finds those that are loaded."""
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


class Recorder:
    """Records the calls of all methods, as `(method, *arguments)`."""

    def __init__(self, **attributes: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, *args, *kwargs.values()))


class Client(Recorder):
    """`mlflow.MlflowClient`."""

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(params={"optim/head/lr": "0.1", "optim/head/eps": "1e-08"}))


@pytest.fixture
def wandb_logger(monkeypatch) -> Recorder:
    class Run:
        pass

    load(monkeypatch, "wandb", Table=lambda columns, data: (columns, data), Image=lambda picture: picture)
    load(monkeypatch, "wandb.sdk.wandb_run", Run=Run)
    return Recorder(experiment=Run())


@pytest.fixture
def mlflow_logger(monkeypatch) -> Recorder:
    load(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    return Recorder(experiment=Client(), run_id="r1")


def test_wandb_gets_all_rows_as_a_table_and_pictures_as_images(wandb_logger) -> None:
    write_table([wandb_logger], "optim/thaw", TABLE, 7)
    (store,) = find_stores([wandb_logger])
    store.write_picture("optim/depth/lr", PICTURE, 8)
    assert wandb_logger.calls == [
        ("log_metrics", {"optim/thaw": (["group", "lr"], [["head", 0.1], ["top", None]])}, 7),
        ("log_metrics", {"optim/depth/lr": PICTURE}, 8),
    ]


def test_mlflow_appends_new_rows_with_their_step_and_has_pictures_by_step(mlflow_logger, monkeypatch) -> None:
    monkeypatch.setattr(mlflow_store, "find_spec", lambda name: name == "pandas")
    write_table([mlflow_logger], "optim/thaw", TABLE, 7)
    (store,) = find_stores([mlflow_logger])
    store.write_picture("optim/depth/lr", PICTURE, 8)
    assert mlflow_logger.experiment.calls == [
        ("log_table", "r1", {"step": [7], "group": ["top"], "lr": [None]}, "optim/thaw.json"),
        ("log_image", "r1", PICTURE, "optim/depth/lr", 8),
    ]


def test_mlflow_without_pandas_gets_markdown(mlflow_logger, monkeypatch) -> None:
    monkeypatch.setattr(mlflow_store, "find_spec", lambda name: None)
    write_table([mlflow_logger], "optim/thaw", TABLE, 7)
    assert mlflow_logger.experiment.calls == [("log_text", "r1", "| ... |", "optim/thaw/7.md")]


def test_mlflow_keeps_the_hyperparameters_that_a_run_began_with(mlflow_logger) -> None:
    added = {"optim/head/lr": 0.2, "optim/head/eps": 1e-8, "optim/top/lr": 0.3}
    write_hyperparameters([mlflow_logger], {}, added)
    assert mlflow_logger.calls == [("log_hyperparams", {"optim/head/eps": 1e-8, "optim/top/lr": 0.3})]


@pytest.mark.parametrize("experiment", [None, SimpleNamespace()], ids=["none", "another"])
def test_other_loggers_have_no_store(wandb_logger, mlflow_logger, experiment) -> None:
    assert not list(find_stores([SimpleNamespace(experiment=experiment), SimpleNamespace()]))


def test_a_column_is_of_one_type() -> None:
    rows = [
        {"number": torch.tensor(0.5), "flag": True, "mixed": 1, "pair": (0.9, 0.99)},
        {"number": 2, "flag": False, "mixed": "stem", "pair": None},
        {"mixed": True},
    ]
    table = LoggedTable.from_rows(rows, markdown="")
    assert table.columns == ("number", "flag", "mixed", "pair")
    assert table.rows == ((0.5, True, "1", "(0.9, 0.99)"), (2, False, "stem", None), (None, None, "True", None))


def test_a_group_table_has_its_numbers() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    table = LoggedTable.from_groups(OptimizerFactory("adamw", lr=0.3).explain(model))
    assert table.columns == ("group", "algorithm", "tensors", "parameters", "lr", "weight_decay", "rules")
    assert table.rows[0] == ("default", "adamw", 2, 6, 0.3, 0.01, "")
    assert table.markdown.startswith("| group |")
