"""A run's config shows the factories: Lightning's loggers call what is callable among the hyperparameters."""

import inspect

import pytest
from lightning.fabric.utilities.logger import (
    _convert_json_serializable,
    _convert_params,
    _flatten_dict,
    _sanitize_callable_params,
    _sanitize_params,
)
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory

GROUPS = {"no_decay": {"kinds": ["bias"], "weight_decay": 0}}
FACTORIES = {
    "optimizer": OptimizerFactory("adamw", lr=3e-4, groups=GROUPS),
    "scheduler": SchedulerFactory("warmup_cosine", warmup_steps=5),
}


def log_to_wandb(params):
    assert "_sanitize_callable_params" in inspect.getsource(WandbLogger.log_hyperparams)
    return _convert_json_serializable(_sanitize_callable_params(_convert_params(params)))


def log_to_mlflow(params):
    assert "_flatten_dict" in inspect.getsource(MLFlowLogger.log_hyperparams)
    return {key: str(value)[:250] for key, value in _flatten_dict(params).items()}


def log_to_tensorboard(params):
    assert "_sanitize_params" in inspect.getsource(TensorBoardLogger.__mro__[2].log_hyperparams)
    return _sanitize_params(_flatten_dict(params))


@pytest.mark.parametrize("log", [log_to_wandb, log_to_mlflow, log_to_tensorboard], ids=lambda log: log.__name__[7:])
def test_a_logger_shows_what_the_factory_holds(log):
    shown = log({**FACTORIES, "width": 8})
    assert shown["optimizer"] == f"OptimizerFactory('adamw', lr=0.0003, groups={GROUPS})"
    assert shown["scheduler"].startswith("SchedulerFactory('warmup_cosine', ")
    assert "warmup_steps=5" in shown["scheduler"]
    assert int(shown["width"]) == 8


def test_the_csv_logger_writes_what_the_factory_holds(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(FACTORIES)
    logger.save()
    text = (tmp_path / "lightning_logs/version_0/hparams.yaml").read_text()
    assert all(part in text for part in ("OptimizerFactory", "name: adamw", "lr: 0.0003", "name: warmup_cosine"))


def test_the_name_of_the_classes_and_their_calls_are_as_before():
    assert (OptimizerFactory.__name__, SchedulerFactory.__name__) == ("OptimizerFactory", "SchedulerFactory")
    optimizer = FACTORIES["optimizer"](nn.Linear(2, 2))
    assert FACTORIES["scheduler"](optimizer, 10).get_last_lr()[0] < optimizer.param_groups[0]["peak_lr"] == 3e-4
