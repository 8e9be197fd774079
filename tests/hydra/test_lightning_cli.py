"""Adoption under LightningCLI: a factory as an argument of the module, or a callback where that stays as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI, OptimizerCallable
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.user_environments import QUIET, batches, groups_of

pytestmark = QUIET

LR = 3e-4
GROUPS = {"default": LR, "head": LR * 10}
# jsonargparse gives `**hyperparameters` by dict_kwargs, and by nothing else.
IN_YAML = """
model:
  optimizer:
    class_path: lightning_optim.OptimizerFactory
    init_args:
      name: adamw
      groups:
        head: {params: head, lr_scale: 10}
    dict_kwargs:
      lr: 0.0003
"""
ON_THE_COMMAND_LINE = (
    "--model.optimizer.class_path=lightning_optim.OptimizerFactory",
    "--model.optimizer.init_args.name=adamw",
    "--model.optimizer.init_args.groups={head: {params: head, lr_scale: 10}}",
    "--model.optimizer.dict_kwargs.lr=3e-4",
)
IN_SHORT = (
    "--model.optimizer=lightning_optim.OptimizerFactory",
    "--model.optimizer.name=adamw",
    "--model.optimizer.groups={head: {params: head, lr_scale: 10}}",
    "--model.optimizer.dict_kwargs.lr=3e-4",
)


class Net(LightningModule):
    """What the modules below share: two layers, and `parameters()` handed on as LightningCLI's docs do."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


class TakesFactory(Net):
    def __init__(self, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None = None) -> None:
        super().__init__()
        self.optimizer, self.scheduler = optimizer, scheduler

    def configure_optimizers(self):
        return configure_optimizers(self, self.optimizer, self.scheduler)


class TakesEither(Net):
    def __init__(self, optimizer: OptimizerCallable | OptimizerFactory = torch.optim.SGD) -> None:
        super().__init__()
        self.optimizer = optimizer


class TakesCallable(Net):
    def __init__(self, optimizer: OptimizerCallable = torch.optim.SGD) -> None:
        super().__init__()
        self.optimizer = optimizer


class Data(LightningDataModule):
    def train_dataloader(self):
        return batches()

    def test_dataloader(self):
        return batches()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs `train.py fit ...`, with the module given."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own calls
    quiet = ("logger=false", "enable_progress_bar=false", "enable_model_summary=false", "accelerator=cpu")
    options = [f"--trainer.{option}" for option in (*quiet, "max_epochs=1", f"default_root_dir={tmp_path}")]

    def run(module: type[LightningModule], *arguments: str) -> LightningCLI:
        return LightningCLI(module, Data, args=["fit", *options, *arguments], save_config_kwargs={"overwrite": True})

    return run


def optimizer_of(cli: LightningCLI) -> torch.optim.Optimizer:
    return cli.trainer.optimizers[0]


@pytest.mark.parametrize("module", [TakesFactory, TakesEither])
@pytest.mark.parametrize(
    "arguments", [pytest.param(ON_THE_COMMAND_LINE, id="class_path"), pytest.param(IN_SHORT, id="short")]
)
def test_a_factory_from_the_command_line(module, arguments, cli):
    built = optimizer_of(cli(module, *arguments))
    assert type(built) is torch.optim.AdamW
    assert groups_of(built) == GROUPS


def test_a_factory_from_a_file_and_from_the_config_that_the_run_saved(cli, tmp_path):
    (tmp_path / "mine.yaml").write_text(IN_YAML, encoding="utf-8")
    assert groups_of(optimizer_of(cli(TakesFactory, f"--config={tmp_path / 'mine.yaml'}"))) == GROUPS
    again = cli(TakesFactory, f"--config={tmp_path / 'config.yaml'}", "--model.optimizer.dict_kwargs.lr=6e-4")
    assert groups_of(optimizer_of(again)) == {"default": 6e-4, "head": 6e-4 * 10}


def test_a_schedule_from_the_command_line(cli):
    done = cli(
        TakesFactory,
        *ON_THE_COMMAND_LINE,
        "--model.scheduler=lightning_optim.SchedulerFactory",
        "--model.scheduler.name=warmup_linear",
        "--model.scheduler.warmup_steps=1",
    )
    (scheduler,) = done.trainer.lr_scheduler_configs
    assert scheduler.interval == "step"
    assert groups_of(optimizer_of(done)) == {"default": 0.0, "head": 0.0}, "the end of the trainer's two steps"


def test_a_checkpoint_of_such_a_module_is_tested_and_loaded(cli):
    done = cli(TakesFactory, *ON_THE_COMMAND_LINE)
    (checkpoint,) = (c for c in done.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    (tested,) = done.trainer.test(done.model, done.datamodule, ckpt_path=checkpoint.best_model_path)
    assert list(tested) == ["test/loss"]
    loaded = TakesFactory.load_from_checkpoint(checkpoint.best_model_path)
    assert loaded.optimizer == done.model.optimizer


def test_a_class_of_torch_where_either_is_taken(cli):
    built = optimizer_of(cli(TakesEither, "--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=0.1"))
    assert type(built) is torch.optim.Adam
    assert built.param_groups[0]["lr"] == 0.1


def test_a_module_as_it_is_under_an_override(cli):
    """`OptimizerCallable` alone takes classes of optimizers only: there, the factory comes by a callback."""
    arguments = [argument.replace("--model.", "--trainer.callbacks.") for argument in IN_SHORT]
    done = cli(TakesCallable, "--trainer.callbacks+=lightning_optim.OptimizerOverride", *arguments)
    assert groups_of(optimizer_of(done)) == GROUPS


def test_the_other_callbacks(cli):
    done = cli(
        TakesCallable,
        "--trainer.callbacks+=lightning_optim.OptimizerMonitor",
        "--trainer.callbacks.to_callback_metrics=true",
        "--trainer.callbacks.every_n_steps=1",
        "--trainer.callbacks+=lightning_optim.StagedUnfreeze",
        "--trainer.callbacks.stages={head: {params: head}, backbone: {params: backbone, at: {step: 1}}}",
    )
    assert groups_of(optimizer_of(done)) == {"head": 1e-3, "backbone": 1e-3}
    assert done.trainer.callback_metrics["optim/lr/backbone"] == pytest.approx(1e-3)


# What is refused.


@pytest.mark.parametrize("key", ["init_args.lr", "init_args.weigth_decay"])
def test_a_hyperparameter_among_the_init_args_is_refused_and_not_dropped(key, cli, capsys):
    with pytest.raises(SystemExit):
        cli(TakesFactory, *ON_THE_COMMAND_LINE, f"--model.optimizer.{key}=0.1")
    assert f"'{key.partition('.')[2]}' is not accepted" in capsys.readouterr().err


def test_a_misspelt_hyperparameter_is_told_the_right_one(cli):
    with pytest.raises(ConfigError, match="Did you mean 'weight_decay'"):
        cli(TakesFactory, *ON_THE_COMMAND_LINE, "--model.optimizer.dict_kwargs.weigth_decay=0.1")
