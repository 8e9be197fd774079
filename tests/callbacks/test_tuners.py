"""LearningRateFinder and BatchSizeFinder: they run what the fit trains first, and leave the fit as without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import Tensor
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import Net, StepTrace, fit, live_lrs

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_training_batches|does not have many workers)")

LR = 0.001
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=3)
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"fraction": 0.5}, "lr_scale": 0.5}}


def factory(lr: float = LR) -> OptimizerFactory:
    """Its groups have other lrs than its own: in proportion to it, and given."""
    groups = {"slow": {"params": "backbone", "lr_scale": 0.1}, "fast": {"params": "head.bias", "lr": 5 * lr}}
    return OptimizerFactory("adamw", lr=lr, groups=groups)


def by_factory(lr: float = LR, scheduler: SchedulerFactory | None = COSINE) -> Any:
    return lambda module: configure_optimizers(module, factory(lr), scheduler)


def by_hand(*, uses_lr: bool, scheduled: bool) -> Any:
    def configure(module: Any) -> Any:
        lr = module.lr if uses_lr else 0.1
        groups = [{"params": module.backbone.parameters(), "lr": lr / 10}, {"params": module.head.parameters()}]
        optimizer = torch.optim.SGD(groups, lr=lr)
        return ([optimizer], [ExponentialLR(optimizer, 0.9)]) if scheduled else optimizer

    return configure


class Data(LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        inputs, targets = torch.randn(64, 4, generator=generator), torch.randint(0, 3, (64,), generator=generator)
        self.data = TensorDataset(inputs, targets)

    def train_dataloader(self) -> Any:
        return DataLoader(self.data, self.batch_size, shuffle=True)


class TunedNet(Net):
    """With dropout; knows which of its parameters get gradients."""

    def __init__(self, configure: Any) -> None:
        torch.manual_seed(0)
        super().__init__(configure, dropout=0.2)
        self.lr = LR
        self.trained: set[str] = set()

    def on_after_backward(self) -> None:
        self.trained |= {name.partition(".")[0] for name, p in self.named_parameters() if p.grad is not None}


class FirstLrs(Callback):
    """The lr and peak lr of each live group when the training starts, and what had been trained by then."""

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if not hasattr(self, "lrs"):
            self.lrs, self.trained = live_lrs(trainer, module), set(module.trained)
            self.peaks = {group["name"]: group.get("peak_lr") for group in trainer.optimizers[0].param_groups}


def lr_finder(**options: Any) -> LearningRateFinder:
    return LearningRateFinder(num_training_steps=20, early_stop_threshold=None, max_lr=0.1, **options)


def run(folder: Any, configure: Any, *callbacks: Callback, batch_size: int = 8) -> tuple[Any, Trainer, list[Any]]:
    module, trace = TunedNet(configure), StepTrace()
    trainer = fit(module, folder, *callbacks, trace, loader=Data(batch_size), epochs=2)
    return module, trainer, trace.steps


PARTS = {
    "stages": (True, False, COSINE),
    "stages, constant": (True, False, None),
    "override": (False, True, COSINE),
    "factory": (False, False, None),
    "stages and override": (True, True, COSINE),
}
"""Whether there are stages, and an override; and the schedule."""


@pytest.mark.parametrize("parts", every(PARTS, fast=["stages", "override"]))
def test_a_suggested_lr_is_as_if_it_were_configured(tmp_path, parts) -> None:
    """Bitwise: groups in proportion, the schedule from there, and no trace of the range test."""
    staged, override, scheduler = PARTS[parts]
    stages = [StagedUnfreeze(STAGES)] if staged else []
    overrides = [OptimizerOverride(factory(), scheduler)] if override else []
    configure = by_hand(uses_lr=False, scheduled=False) if override else by_factory(LR, scheduler)
    first = FirstLrs()
    module, _, steps = run(tmp_path, configure, *stages, *overrides, lr_finder(), first)
    assert module.lr != LR
    assert first.trained == ({"head"} if staged else {"head", "backbone"})
    expected, _, expected_steps = run(
        tmp_path, by_factory(module.lr, scheduler), *([StagedUnfreeze(STAGES)] if staged else [])
    )
    assert steps == expected_steps
    assert equal(module.state_dict(), expected.state_dict())


def test_a_range_test_steps_groups_in_proportion(tmp_path) -> None:
    stepped: list[list[float]] = []

    class Record(TunedNet):
        def on_after_backward(self) -> None:
            optimizer = self.trainer.optimizers[0]
            if not getattr(self, "recorded", False):
                self.recorded = True
                optimizer.register_step_pre_hook(
                    lambda *_: stepped.append([group["lr"] for group in optimizer.param_groups])
                )

    fit(Record(by_factory(LR, None)), tmp_path, lr_finder(update_attr=False), loader=Data(8), epochs=1)
    for slow, own, fast in stepped[:20]:
        assert (slow / own, fast / own) == pytest.approx((0.1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("staged", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tuner", ["lr", "batch size"])
def test_a_run_after_a_tuner_is_bitwise_as_without(tmp_path, staged, tuner) -> None:
    """Of the batch size that was found: the length of the schedule, and fractions of the run, are found anew."""
    stages = [StagedUnfreeze(STAGES)] if staged else []
    finder = lr_finder(update_attr=False) if tuner == "lr" else BatchSizeFinder(max_trials=2, init_val=8)
    module, trainer, steps = run(tmp_path, by_factory(), *stages, finder, batch_size=4 if tuner == "batch size" else 8)
    batch_size = trainer.datamodule.batch_size
    assert batch_size == (16 if tuner == "batch size" else 8)
    stages = [StagedUnfreeze(STAGES)] if staged else []
    expected, _, expected_steps = run(tmp_path, by_factory(), *stages, batch_size=batch_size)
    assert len(steps) == 2 * 64 // batch_size and steps == expected_steps
    assert equal(module.state_dict(), expected.state_dict())


@pytest.mark.parametrize(
    "configure",
    every(
        [by_factory(), by_hand(uses_lr=True, scheduled=True)], fast=["factory"],
        id=lambda configure: "factory" if "by_factory" in configure.__qualname__ else "by hand",
    ),
)  # fmt: skip
def test_tuner_before_a_fit(tmp_path, configure) -> None:
    module, first, unfreeze = TunedNet(configure), FirstLrs(), StagedUnfreeze(STAGES)
    seed_everything(1, verbose=False)
    trainer = Trainer(
        max_epochs=2, callbacks=[unfreeze, first], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    data = Data(8)
    Tuner(trainer).lr_find(module, datamodule=data, num_training=20, early_stop_threshold=None, max_lr=0.1)
    assert module.trained == {"head"} and module.lr != LR
    assert all(parameter.requires_grad for parameter in module.parameters())
    Tuner(trainer).scale_batch_size(module, datamodule=data, max_trials=2, init_val=8)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2 * 64 // data.batch_size == 8
    lrs = first.lrs if None in first.peaks.values() else first.peaks
    assert lrs["head" if "head" in lrs else "head.group1"] == pytest.approx(module.lr)
    assert "backbone" in trainer.optimizers[0].param_groups[-1]["name"]


def test_a_suggestion_that_a_schedule_would_overwrite_is_refused(tmp_path) -> None:
    first = FirstLrs()
    module, *_ = run(tmp_path, by_hand(uses_lr=False, scheduled=False), StagedUnfreeze(STAGES), lr_finder(), first)
    assert first.lrs == {"head.group1": module.lr}
    with pytest.raises(ConfigError, match=r"LearningRateFinder: it suggests lr .*Type lr=self\.lr there"):
        run(tmp_path, by_hand(uses_lr=False, scheduled=True), StagedUnfreeze(STAGES), lr_finder())


def test_resuming_beside_a_tuner_is_refused(tmp_path) -> None:
    """Lightning forgets the checkpoint's loops and optimizers: the run would silently start over."""
    saving = ModelCheckpoint(tmp_path, "{epoch}")
    fit(TunedNet(by_factory()), tmp_path, saving, loader=Data(8), epochs=1, enable_checkpointing=True)
    with pytest.raises(
        ConfigError, match=r"trainer\.callbacks: with LearningRateFinder.*Remove the callback to resume"
    ):
        fit(TunedNet(by_factory()), tmp_path, lr_finder(), loader=Data(8), ckpt_path=tmp_path / "epoch=0.ckpt")


def test_an_error_in_a_range_test_leaves_trainer_and_module_as_they_were(tmp_path) -> None:
    class Broken(TunedNet):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            raise MemoryError

    stopped: list[str] = []

    class Stopped(Callback):
        def on_exception(self, *_: Any) -> None:
            stopped.append("here")

    module = Broken(by_factory())
    with pytest.raises(MemoryError):
        fit(module, tmp_path, StagedUnfreeze(STAGES), lr_finder(), Stopped(), loader=Data(8))
    assert stopped == ["here"], "Lightning alone loses the trainer's callbacks here"
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.backbone[1].training


def test_tuners_of_other_runs_are_left_alone(tmp_path) -> None:
    configured: list[int] = []

    def configure(module: Any) -> Any:
        configured.append(1)
        return torch.optim.SGD(module.parameters(), lr=module.lr)

    fit(TunedNet(configure), tmp_path, lr_finder(), loader=Data(8), epochs=1)
    assert configured == [1]
