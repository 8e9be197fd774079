"""How often an app steps its schedule is read from its config and its code; a curve of another interval is refused."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import ConfigError, SchedulerFactory
from lightning_optim.cli.stepping import check_stepping

BY_STEP = SchedulerFactory("step", step_size=1)
BY_EPOCH = SchedulerFactory("step", step_size=1, interval="epoch")


class ByEpoch(LightningModule):
    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(self)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": None, "interval": "epoch"}}


class ByStep(LightningModule):
    def configure_optimizers(self):
        return {"optimizer": None, "lr_scheduler": {"scheduler": None, "interval": "step"}}


class ByLightningsDefault(LightningModule):
    def configure_optimizers(self):
        return {"optimizer": None, "lr_scheduler": {"scheduler": None, "monitor": "val/loss"}}


class ByItsArgument(LightningModule):
    def configure_optimizers(self):
        return {"optimizer": None, "lr_scheduler": {"scheduler": None, "interval": self.hparams.interval}}


class SetLater(LightningModule):
    def configure_optimizers(self):
        config = {"scheduler": None}
        config["interval"] = "step"
        return {"optimizer": None, "lr_scheduler": config}


class Unpacked(LightningModule):
    def configure_optimizers(self):
        return {"optimizer": None, "lr_scheduler": {"scheduler": None, **self.hparams.more}}


class OfSomethingElse(LightningModule):
    def configure_optimizers(self):
        arguments = {"scheduler": self.hparams.scheduler}
        return self.build(**arguments)


class TwoIntervals(LightningModule):
    def configure_optimizers(self):
        by_step, by_epoch = {"scheduler": None, "interval": "step"}, {"scheduler": None, "interval": "epoch"}
        return [], [by_step if self.hparams.fast else by_epoch]


def check(module: nn.Module, scheduler: SchedulerFactory = BY_STEP, text: str = "{}", key: str = "scheduler") -> str:
    return check_stepping(OmegaConf.create(text), module, {}, key, scheduler)


@pytest.mark.parametrize("module", [ByEpoch, ByLightningsDefault], ids=lambda it: it.__name__)
def test_a_schedule_by_steps_is_refused_where_the_code_steps_it_by_epochs(module) -> None:
    with pytest.raises(ConfigError) as caught:
        check(module())
    assert str(caught.value) == (
        f"scheduler.interval: it is step, but {module.__name__}.configure_optimizers steps the schedule once an epoch. "
        "Type scheduler.interval=epoch, and give its lengths in epochs"
    )


def test_a_schedule_by_epochs_is_refused_where_the_code_steps_it_by_steps() -> None:
    with pytest.raises(
        ConfigError, match=r"it is epoch, but ByStep\.configure_optimizers .* Type scheduler\.interval=step"
    ):
        check(ByStep(), BY_EPOCH)


def test_where_the_code_says_the_same_this_is_told() -> None:
    assert check(ByEpoch(), BY_EPOCH) == "scheduler steps once an epoch, as ByEpoch.configure_optimizers says"
    assert check(ByStep()) == "scheduler steps once per optimizer step, as ByStep.configure_optimizers says"


@pytest.mark.parametrize(
    "module",
    [ByItsArgument, SetLater, Unpacked, OfSomethingElse, TwoIntervals, LightningModule, torch.nn.Identity],
    ids=lambda it: it.__name__,
)
@pytest.mark.parametrize("scheduler", [BY_STEP, BY_EPOCH], ids=["step", "epoch"])
def test_where_nothing_says_it_the_assumption_is_told(module, scheduler) -> None:
    unit = {"step": "once per optimizer step", "epoch": "once an epoch"}[scheduler.interval]
    assert check(module(), scheduler) == (
        f"assumed: scheduler steps {unit} (scheduler.interval: {scheduler.interval}), as with "
        "lightning_optim.configure_optimizers"
    )


def test_the_code_does_not_count_where_a_callback_replaces_it() -> None:
    targets = {"callbacks.override": "lightning_optim.OptimizerOverride"}
    assert check_stepping(OmegaConf.create(), ByEpoch(), targets, "scheduler", BY_STEP).startswith("assumed: ")


def test_lightnings_dict_in_the_config_decides() -> None:
    text = "lr_scheduler: {scheduler: {_target_: x}, interval: epoch}"
    with pytest.raises(
        ConfigError, match=r"^lr_scheduler\.scheduler\.interval: it is step, but lr_scheduler\.interval "
    ):
        check(ByStep(), text=text, key="lr_scheduler.scheduler")
    assert "as lr_scheduler.interval says" in check(ByStep(), BY_EPOCH, text, "lr_scheduler.scheduler")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model: {_target_: mine.Net, scheduler: {_target_: x}, interval: epoch}", "model.scheduler"),
        ("dict: {scheduler: {_target_: x}, interval: sometimes}", "dict.scheduler"),
        ("dict: {other: {_target_: x}, interval: epoch}", "dict.other"),
        ("{scheduler: {_target_: x}, interval: epoch}", "scheduler"),
    ],
    ids=["argument of a model", "another word", "not a scheduler's dict", "top level"],
)
def test_an_interval_of_something_else_does_not_count(text, key) -> None:
    assert check(torch.nn.Identity(), text=text, key=key).startswith("assumed: ")


def test_without_a_schedule_that_is_assumed() -> None:
    assert check_stepping(OmegaConf.create(), ByEpoch(), {}, None, None).startswith("assumed: no schedule")
