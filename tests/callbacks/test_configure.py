"""configure_optimizers, and the length of a run that it takes from the trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.callbacks.run_length import get_run_length
from tests.support.equality import equal
from tests.support.training import Loader, Net, fit

ADAMW = OptimizerFactory("adamw", lr=0.01)


class StopFit(Exception):
    pass


def read_length(tmp_path: Any, loader: Any, interval: str = "step", **arguments: Any) -> Any:
    """The length inside configure_optimizers, whether it has set up the loader, and the length Lightning estimates."""
    found = {}

    def configure(module: Any) -> Any:
        found["ours"] = get_run_length(module.trainer, interval)
        found["loaded"] = module.trainer.train_dataloader is not None
        found["lightning"] = module.trainer.estimated_stepping_batches
        raise StopFit

    with pytest.raises(StopFit):
        fit(Net(configure), tmp_path, loader=loader, **arguments)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 3},
        {"epochs": 3, "accumulate_grad_batches": 3},
        {"epochs": 3, "limit_train_batches": 3},
        {"epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 4},
        {"epochs": 100, "max_steps": 7},
        {"epochs": -1, "max_steps": 7},
        {"epochs": 2, "max_steps": 1000},
    ],
    ids=lambda arguments: ", ".join(f"{k}={v}" for k, v in arguments.items()),
)
def test_the_length_in_steps_is_lightning_s_without_setting_up_the_loader(tmp_path, arguments) -> None:
    data = TensorDataset(torch.zeros(20, 4), torch.zeros(20))
    found = read_length(tmp_path, DataLoader(data, batch_size=2), **arguments)
    assert found["ours"] == found["lightning"]
    assert not found["loaded"]


def test_several_loaders_are_counted_as_lightning_counts_them(tmp_path) -> None:
    loaders = {name: DataLoader(TensorDataset(torch.zeros(n, 4))) for name, n in (("a", 6), ("b", 10))}
    found = read_length(tmp_path, loaders, epochs=2)
    assert found["ours"] == found["lightning"] == 20


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_warmup_may_be_in_epochs_or_a_fraction_of_the_run(tmp_path, accumulate) -> None:
    """An epoch has four batches."""
    steps = -(-4 // accumulate)
    for given, expected in (({"warmup_epochs": 2}, 2 * steps), ({"warmup_fraction": 0.5}, 3 * steps // 2)):
        scheduler = SchedulerFactory("inverse_sqrt", **given)
        configure = lambda module, scheduler=scheduler: configure_optimizers(module, ADAMW, scheduler)  # noqa: E731
        trainer = fit(Net(configure), tmp_path, epochs=3, accumulate_grad_batches=accumulate)
        assert trainer.lr_scheduler_configs[0].scheduler.lr_lambdas[0].warmup_steps == expected


def test_a_warmup_in_epochs_of_unknown_length_is_refused(tmp_path) -> None:
    module = Net(lambda m: configure_optimizers(m, ADAMW, SchedulerFactory("noam", warmup_epochs=1)))
    with pytest.raises(ConfigError, match=r"^scheduler\.warmup_epochs: .* scheduler\.warmup_steps: 500"):
        fit(module, tmp_path, GradientAccumulationScheduler({0: 2}))


def test_the_length_in_epochs_is_max_epochs(tmp_path) -> None:
    assert read_length(tmp_path, Loader(), interval="epoch", epochs=5)["ours"] == 5


def test_the_schedule_of_a_fast_dev_run_stays_at_its_beginning(tmp_path) -> None:
    scheduler = SchedulerFactory("warmup_cosine", warmup_steps=100)
    trainer = fit(Net(lambda m: configure_optimizers(m, ADAMW, scheduler)), tmp_path, fast_dev_run=True)
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [0.01 * 2 / 100]


def test_accumulation_that_changes_by_epoch_is_refused(tmp_path) -> None:
    scheduler = SchedulerFactory("cosine_annealing")
    module = Net(lambda m: configure_optimizers(m, ADAMW, scheduler))
    with pytest.raises(
        ConfigError, match=r"^scheduler\.total_steps: .* a GradientAccumulationScheduler .* Type scheduler\."
    ):
        fit(module, tmp_path, GradientAccumulationScheduler({0: 2}))


def test_a_trainer_without_end_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"^scheduler\.total_steps: .*trainer has no end\. Type scheduler\."):
        read_length(tmp_path, Loader(), epochs=-1)


def test_a_loader_without_length_is_refused(tmp_path) -> None:
    class Endless(IterableDataset):
        def __iter__(self) -> Any:
            yield from iter(Loader())

    with pytest.raises(ConfigError, match=r"^scheduler\.total_steps: .*training loader has no length\. .*max_steps"):
        read_length(tmp_path, DataLoader(Endless(), batch_size=None), epochs=1)


def test_a_schedule_gets_the_length_of_the_run(tmp_path) -> None:
    scheduler = SchedulerFactory("one_cycle")
    trainer = fit(Net(lambda m: configure_optimizers(m, ADAMW, scheduler)), tmp_path, epochs=3)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 12
    assert trainer.lr_scheduler_configs[0].interval == "step"


def test_a_stateful_loader_resumes_mid_epoch(tmp_path) -> None:
    """A schedule that reads trainer.estimated_stepping_batches would break it silently (Lightning #20550)."""

    def run(**arguments: Any) -> LightningModule:
        torch.manual_seed(0)
        module = Net(lambda m: configure_optimizers(m, ADAMW, SchedulerFactory("cosine_annealing")))
        fit(module, tmp_path, epochs=3, **arguments)
        return module

    full = run(save=True)
    assert equal(full.state_dict(), run(ckpt_path=tmp_path / "step=6.ckpt").state_dict())


def test_without_a_scheduler_there_is_only_the_optimizer() -> None:
    module = Net(lambda m: None)
    assert list(configure_optimizers(module, ADAMW)) == ["optimizer"]


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "message"),
    [
        ({"_target_": "x"}, None, r"optimizer: got a dict, not a OptimizerFactory; instantiate it first"),
        (ADAMW, {"name": "x"}, r"scheduler: got a dict, not a SchedulerFactory; instantiate it first"),
    ],
    ids=["optimizer", "scheduler"],
)
def test_a_factory_that_was_not_instantiated_is_refused(optimizer, scheduler, message) -> None:
    with pytest.raises(ConfigError, match=message):
        configure_optimizers(Net(lambda m: None), optimizer, scheduler)


def test_a_module_without_trainer_takes_total_steps_from_the_config() -> None:
    module = Net(lambda m: None)
    config = configure_optimizers(module, ADAMW, SchedulerFactory("one_cycle", total_steps=9))
    assert config["lr_scheduler"]["scheduler"].total_steps == 9


def test_reduce_on_plateau_needs_only_its_monitor(tmp_path) -> None:
    scheduler = SchedulerFactory(
        "reduce_on_plateau", interval="epoch", monitor="loss", patience=0, threshold=1e9, threshold_mode="abs"
    )

    class EpochLrs(Callback):
        values: list[float] = []

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.values.append(trainer.optimizers[0].param_groups[0]["lr"])

    lrs = EpochLrs()
    fit(Net(lambda m: configure_optimizers(m, ADAMW, scheduler)), tmp_path, lrs, epochs=3)
    assert lrs.values == [0.01, 0.01, 0.01 * 0.1]


def test_deepspeed_is_refused_before_anything_is_built() -> None:
    module = Net(lambda module: None)
    strategy = DeepSpeedStrategy.__new__(DeepSpeedStrategy)  # it can be built only where DeepSpeed is installed
    module._trainer = SimpleNamespace(strategy=strategy, callbacks=[])
    with pytest.raises(ConfigError, match=r"^trainer\.strategy: DeepSpeedStrategy: .* Type trainer\.strategy=ddp"):
        configure_optimizers(module, ADAMW)
