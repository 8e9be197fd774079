"""What Lightning allows goes on beside our callbacks: metrics that come late, no optimizer, epochs that are skipped."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

import lightning_optim.callbacks.monitor
import lightning_optim.callbacks.unfreeze
from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit

STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


def sgd(module: Net) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1)


class LateMetric(Net):
    """Logs a metric from its third epoch on, never better than before."""

    def val_dataloader(self) -> Any:
        return Loader(1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.current_epoch >= 2:
            self.log("late", 1.0)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric late which is not available")
def test_a_scheduler_that_is_not_strict_skips_a_missing_metric(tmp_path, interval) -> None:
    def configure(module: Net) -> Any:
        optimizer = sgd(module)
        scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        config = {"scheduler": scheduler, "monitor": "late", "strict": False, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lrs(*callbacks: Any) -> list[float]:
        trace = StepTrace(lambda trainer, _: trainer.optimizers[0].param_groups[0]["lr"])
        fit(LateMetric(configure), tmp_path, *callbacks, trace, epochs=6)
        return trace.steps

    expected = lrs()
    assert len(set(expected)) > 1
    assert lrs(StagedUnfreeze({"whole": {"params": "*"}})) == expected


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_a_fit_without_an_optimizer_is_logged_in_one_line(tmp_path, monkeypatch) -> None:
    printed: list[str] = []
    for module in (lightning_optim.callbacks.monitor, lightning_optim.callbacks.unfreeze):
        monkeypatch.setattr(module, "rank_zero_info", printed.append)
    monitor, unfreeze = OptimizerMonitor(to_callback_metrics=True), StagedUnfreeze(STAGES)
    trainer = fit(Net(lambda module: None), tmp_path, monitor, unfreeze, epochs=2, save=True)
    assert trainer.current_epoch == 2
    assert sorted(printed) == [
        "OptimizerMonitor: configure_optimizers has returned None, so there is nothing to log",
        "StagedUnfreeze: configure_optimizers has returned None, so there is nothing to thaw",
    ]


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_a_fit_without_an_optimizer_resumes(tmp_path) -> None:
    fit(Net(lambda module: None), tmp_path, StagedUnfreeze(STAGES), epochs=1, save=True)
    saved = tmp_path / f"step={BATCHES}.ckpt"
    trainer = fit(Net(lambda module: None), tmp_path, StagedUnfreeze(STAGES), epochs=2, ckpt_path=saved)
    assert trainer.current_epoch == 2


class Skipping(Net):
    """Ends its second epoch before the third batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if (self.current_epoch, batch_idx) == (1, 2) else None


def test_an_epoch_may_be_ended_by_a_hook_and_resumes_bitwise_afterwards(tmp_path) -> None:
    def configure(module: Net) -> Any:
        scheduler = SchedulerFactory("reduce_on_plateau", interval="epoch", monitor="loss", patience=0)
        return configure_optimizers(module, OptimizerFactory("sgd", lr=0.1), scheduler)

    def run(*callbacks: Any, **arguments: Any) -> tuple[Any, list[Any]]:
        torch.manual_seed(0)
        module, trace = Skipping(configure), StepTrace()
        ours = [StagedUnfreeze(STAGES), OptimizerMonitor(to_callback_metrics=True)]
        fit(module, tmp_path, *ours, trace, *callbacks, **arguments)
        return module.state_dict(), trace.steps

    full, steps = run(ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1), enable_checkpointing=True)
    assert len(steps) == 3 * BATCHES + 2
    for epoch in (1, 2):
        assert equal(run(ckpt_path=tmp_path / f"epoch={epoch}.ckpt")[0], full), epoch


def test_schedulers_step_after_the_epochs_after_which_lightning_steps_them(tmp_path) -> None:
    """After an epoch that a hook ends, and not after one within which `max_steps` ends the run."""

    def configure(module: Net) -> Any:
        optimizer = sgd(module)
        scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=10, threshold_mode="abs")
        config = {"scheduler": scheduler, "monitor": "loss", "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def run(*callbacks: Any) -> tuple[list[float], float]:
        trace = StepTrace(lambda trainer, _: trainer.optimizers[0].param_groups[0]["lr"])
        trainer = fit(Skipping(configure), tmp_path, *callbacks, trace, max_steps=12)
        return trace.steps, trainer.optimizers[0].param_groups[0]["lr"]

    expected, final = run()
    assert len(expected) == 12 and expected[5:7] == [0.1, 0.05] and expected[-1] == final == 0.025
    assert run(StagedUnfreeze({"whole": {"params": "*"}})) == (expected, final)


class SteppedByHand(Net):
    """Steps its scheduler at the end of an epoch, as Lightning's documentation does."""

    automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        self.lr_schedulers().step()


def halving(module: Net) -> Any:
    groups = [{"params": module.head.parameters()}, {"params": module.backbone.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    return [optimizer], [ExponentialLR(optimizer, 0.5)]


@pytest.mark.parametrize("staged", [True, False], ids=["with stages", "without"])
def test_an_epoch_s_checkpoint_holds_the_lr_that_goes_with_its_scheduler(tmp_path, staged) -> None:
    """So that it also resumes without stages."""

    def run(*callbacks: Any, **arguments: Any) -> tuple[Trainer, Any]:
        torch.manual_seed(0)
        module = SteppedByHand(halving)
        return fit(module, tmp_path, *callbacks, **arguments), module.state_dict()

    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    _, full = run(StagedUnfreeze(STAGES), saving, enable_checkpointing=True)
    checkpoint = torch.load(tmp_path / "epoch=2.ckpt", weights_only=False)
    lrs = [group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]]
    assert lrs == checkpoint["lr_schedulers"][0]["_last_lr"] == [0.0125] * 2
    _, resumed = run(*([StagedUnfreeze(STAGES)] if staged else []), ckpt_path=tmp_path / "epoch=2.ckpt")
    assert equal(resumed, full)


class Configured(Net):
    """As Net, without a function of a test, which does not pickle."""

    def __init__(self) -> None:
        super().__init__(None)

    def configure_optimizers(self) -> Any:
        return sgd(self)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_a_trainer_pickles_after_a_fit(tmp_path) -> None:
    override = OptimizerOverride(OptimizerFactory("adamw"), SchedulerFactory("warmup_cosine", warmup_steps=2))
    callbacks = [StagedUnfreeze(STAGES), OptimizerMonitor(to_callback_metrics=True), override]
    trainer = fit(Configured(), tmp_path, *callbacks, epochs=2)
    restored = pickle.loads(pickle.dumps(trainer))
    assert restored.global_step == trainer.global_step
    assert [type(callback) for callback in restored.callbacks] == [type(callback) for callback in trainer.callbacks]
