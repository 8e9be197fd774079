"""Use with LightningCLI: a factory as an argument of the module, or a callback where the module stays unchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, OptimizerCallable
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers, optim
from lightning_optim.schedule.by_group import SchedulerByGroup
from tests.support.cases import every
from tests.support.short_runs import IGNORED_WARNINGS, build_loader, lr_by_group

pytestmark = IGNORED_WARNINGS

LR = 3e-4
GROUPS = {"default": LR, "head": LR * 10}
# jsonargparse passes `**hyperparameters` through dict_kwargs only.
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
FULL_FORM = (
    "--model.optimizer.class_path=lightning_optim.OptimizerFactory",
    "--model.optimizer.init_args.name=adamw",
    "--model.optimizer.init_args.groups={head: {params: head, lr_scale: 10}}",
    "--model.optimizer.dict_kwargs.lr=3e-4",
)
SHORT_FORM = (
    "--model.optimizer=lightning_optim.OptimizerFactory",
    "--model.optimizer.name=adamw",
    "--model.optimizer.groups={head: {params: head, lr_scale: 10}}",
    "--model.optimizer.dict_kwargs.lr=3e-4",
)


class Net(LightningModule):
    """The base of the modules below: two layers, and `parameters()` passed on as in LightningCLI's docs."""

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


class ReadsHyperparameters(TakesFactory):
    """As in Lightning's docs: LightningCLI stores plain mappings in `self.hparams`."""

    def configure_optimizers(self):
        return configure_optimizers(self, self.hparams.optimizer, self.hparams.scheduler)


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
        return build_loader()

    def test_dataloader(self):
        return build_loader()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs `train.py fit ...` with a module class."""
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


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        pytest.param(TakesFactory, FULL_FORM, id="factory, full form"),
        pytest.param(TakesEither, SHORT_FORM, id="factory or callable, short form"),
        pytest.param(TakesFactory, SHORT_FORM, id="factory, short form", marks=pytest.mark.slow),
        pytest.param(TakesEither, FULL_FORM, id="factory or callable, full form", marks=pytest.mark.slow),
    ],
)
def test_a_factory_is_given_on_the_command_line(module, arguments, cli):
    built = optimizer_of(cli(module, *arguments))
    assert type(built) is torch.optim.AdamW
    assert lr_by_group(built) == GROUPS


def test_a_factory_is_given_in_a_file_and_in_the_config_that_the_run_saved(cli, tmp_path):
    (tmp_path / "mine.yaml").write_text(IN_YAML, encoding="utf-8")
    assert lr_by_group(optimizer_of(cli(TakesFactory, f"--config={tmp_path / 'mine.yaml'}"))) == GROUPS
    again = cli(TakesFactory, f"--config={tmp_path / 'config.yaml'}", "--model.optimizer.dict_kwargs.lr=6e-4")
    assert lr_by_group(optimizer_of(again)) == {"default": 6e-4, "head": 6e-4 * 10}


def test_a_schedule_is_given_on_the_command_line(cli):
    result = cli(
        TakesFactory,
        *FULL_FORM,
        "--model.scheduler=lightning_optim.SchedulerFactory",
        "--model.scheduler.name=warmup_linear",
        "--model.scheduler.warmup_steps=1",
    )
    (scheduler,) = result.trainer.lr_scheduler_configs
    assert scheduler.interval == "step"
    assert lr_by_group(optimizer_of(result)) == {"default": 0.0, "head": 0.0}, "after the two steps of the run"


@pytest.mark.slow
def test_a_checkpoint_with_a_factory_can_be_tested_and_loaded(cli):
    result = cli(TakesFactory, *FULL_FORM)
    (checkpoint,) = (c for c in result.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    (tested,) = result.trainer.test(result.model, result.datamodule, ckpt_path=checkpoint.best_model_path)
    assert list(tested) == ["test/loss"]
    loaded = TakesFactory.load_from_checkpoint(checkpoint.best_model_path)
    assert loaded.optimizer == result.model.optimizer


def test_a_module_may_read_the_factories_from_its_hyperparameters(cli):
    scheduler = ("--model.scheduler=lightning_optim.SchedulerFactory", "--model.scheduler.name=constant")
    result = cli(ReadsHyperparameters, *FULL_FORM, *scheduler, "--model.scheduler.dict_kwargs.factor=1.0")
    assert type(result.model.hparams.optimizer) is type(result.model.hparams.scheduler) is dict
    assert lr_by_group(optimizer_of(result)) == GROUPS
    assert len(result.trainer.lr_scheduler_configs) == 1


def test_one_key_of_one_rule_is_given_on_the_command_line(cli):
    built = optimizer_of(cli(TakesFactory, *FULL_FORM, "--model.optimizer.dict_kwargs.groups.head.lr_scale=5"))
    assert lr_by_group(built) == {"default": LR, "head": LR * 5}


def test_a_torch_optimizer_is_given_where_either_is_accepted(cli):
    built = optimizer_of(cli(TakesEither, "--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=0.1"))
    assert type(built) is torch.optim.Adam
    assert built.param_groups[0]["lr"] == 0.1


def test_an_override_replaces_the_optimizer_of_an_unchanged_module(cli):
    """`OptimizerCallable` accepts optimizer classes only, so the factory is given to a callback."""
    arguments = [argument.replace("--model.", "--trainer.callbacks.") for argument in SHORT_FORM]
    result = cli(TakesCallable, "--trainer.callbacks+=lightning_optim.OptimizerOverride", *arguments)
    assert lr_by_group(optimizer_of(result)) == GROUPS


@pytest.mark.slow
def test_monitor_and_unfreeze_are_given_on_the_command_line(cli):
    result = cli(
        TakesCallable,
        "--trainer.callbacks+=lightning_optim.OptimizerMonitor",
        "--trainer.callbacks.to_callback_metrics=true",
        "--trainer.callbacks.every_n_steps=1",
        "--trainer.callbacks+=lightning_optim.StagedUnfreeze",
        "--trainer.callbacks.stages={head: {params: head}, backbone: {params: backbone, at: {step: 1}}}",
    )
    assert lr_by_group(optimizer_of(result)) == {"head": 1e-3, "backbone": 1e-3}
    assert result.trainer.callback_metrics["optim/lr/backbone"] == pytest.approx(1e-3)


# The names of torch's classes.


def every_class_below(cls: type) -> list[type]:
    return [subclass for direct in type.__subclasses__(cls) for subclass in (direct, *every_class_below(direct))]


def test_the_name_of_an_optimizer_of_torch_means_that_class():
    for name in optim.__all__:
        getattr(optim, name)
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_optimizer_args((torch.optim.Optimizer,), "given")  # as LightningCLI does for --optimizer
    by_library: dict[str, set[str]] = {}
    for cls in every_class_below(torch.optim.Optimizer):
        by_library.setdefault(cls.__module__.partition(".")[0], set()).add(cls.__name__)
    names = by_library.pop("torch")
    assert names & by_library.pop("lightning_optim")
    assert {"Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"} <= names
    names -= set().union(*by_library.values())  # of libraries that other tests have imported
    for name in names:
        assert parser.parse_args([f"--given={name}"]).given.class_path.startswith("torch.optim."), name


def is_importable(cls: type) -> bool:
    """Not so: the class that a plateau scheduler has during a fit, which may be garbage of another test."""
    return getattr(sys.modules[cls.__module__], cls.__name__, None) is cls


def test_no_scheduler_of_ours_has_the_name_of_one_of_torch():
    classes = every_class_below(torch.optim.lr_scheduler.LRScheduler)
    assert SchedulerByGroup in classes
    ours = {cls.__name__ for cls in classes if cls.__module__.startswith("lightning_optim") and is_importable(cls)}
    assert not ours & {cls.__name__ for cls in classes if cls.__module__.startswith("torch.")}


@pytest.mark.slow
def test_a_users_subclass_of_a_class_with_a_name_of_torch_is_found_by_its_name(cli, monkeypatch):
    class Mine(optim.AdamW):
        pass

    monkeypatch.setitem(globals(), "Mine", Mine)
    Mine.__qualname__ = "Mine"
    assert Mine in optim.Adam.__subclasses__()
    assert type(optimizer_of(cli(TakesCallable, "--model.optimizer=Mine", "--model.optimizer.lr=0.1"))) is Mine


@pytest.mark.slow
def test_our_class_with_a_name_of_torch_is_given_by_its_path(cli):
    built = optimizer_of(cli(TakesCallable, "--model.optimizer=lightning_optim.optim.AdamW"))
    assert type(built) is optim.AdamW


# Mistakes.


@pytest.mark.parametrize("key", every(["init_args.lr", "init_args.weigth_decay"], fast=["init_args.lr"]))
def test_a_hyperparameter_in_init_args_is_refused(key, cli, capsys):
    with pytest.raises(SystemExit):
        cli(TakesFactory, *FULL_FORM, f"--model.optimizer.{key}=0.1")
    assert f"'{key.partition('.')[2]}' is not accepted" in capsys.readouterr().err


def test_a_misspelt_hyperparameter_is_refused_with_the_nearest(cli):
    with pytest.raises(ConfigError, match="Did you mean 'weight_decay'"):
        cli(TakesFactory, *FULL_FORM, "--model.optimizer.dict_kwargs.weigth_decay=0.1")
