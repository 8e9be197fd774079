"""Steps and fractions of a run where batches, optimizer steps and `trainer.global_step` differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.cases import every
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit, live_lrs

EPOCHS = 4


def sgd(module: Net) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def two(module: Net) -> Any:
    return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (module.backbone, module.head)]


class Manual(Net):
    """Steps all its optimizers after every `accumulate` batches, by hand."""

    automatic_optimization = False

    def __init__(self, configure: Any, accumulate: int = 1, *, zero_first: bool = False) -> None:
        super().__init__(configure)
        self.accumulate, self.zero_first = accumulate, zero_first

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        if self.zero_first and batch_idx % self.accumulate == 0:
            self.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        if (batch_idx + 1) % self.accumulate == 0:
            for optimizer in optimizers:
                optimizer.step()
            if not self.zero_first:
                self.zero_grad()


class Skipping(Net):
    """`training_step` returns None for these batches."""

    def __init__(self, configure: Any, *skipped: tuple[int, int]) -> None:
        super().__init__(configure)
        self.skipped = skipped

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        skip = (self.current_epoch, batch_idx) in self.skipped
        return None if skip else nn.functional.cross_entropy(self(batch[0]), batch[1])


class ThawBatch(Callback):
    """The batch of the run before which the backbone has thawed, and the batches of its first gradient."""

    batch: int | None = None

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.batch is None and module.backbone[0].weight.requires_grad:
            self.batch = trainer.current_epoch * trainer.num_training_batches + batch_idx


def thaw_batch(folder: Any, module: Net, at: dict[str, Any], *callbacks: Callback, **arguments: Any) -> int | None:
    found = ThawBatch()
    unfreeze = StagedUnfreeze({"head": {"params": "head"}, "backbone": {"params": "backbone", "at": at}})
    fit(module, folder, unfreeze, found, *callbacks, **{"epochs": EPOCHS, **arguments})
    return found.batch


ALL = EPOCHS * BATCHES
CASES: dict[str, tuple[Any, dict[str, Any], int, dict[str, Any]]] = {
    # Half of the run's 16 batches, whoever steps how often.
    "manual": (lambda: Manual(sgd), {"fraction": 0.5}, ALL // 2, {}),
    "two optimizers": (lambda: Manual(two), {"fraction": 0.5}, ALL // 2, {}),
    "accumulating by hand": (lambda: Manual(sgd, 2), {"fraction": 0.5}, ALL // 2, {}),
    "accumulating by hand, zeroed before": (lambda: Manual(sgd, 2, zero_first=True), {"fraction": 0.5}, ALL // 2, {}),
    "not amid an accumulation by hand": (lambda: Manual(sgd, 4), {"fraction": 0.4}, ALL // 2, {}),
    "of all steps of two optimizers": (lambda: Manual(two), {"fraction": 0.5}, 5, {"max_steps": 20}),
    "batches without a loss": (lambda: Skipping(sgd, (0, 0), (1, 1)), {"fraction": 0.5}, ALL // 2, {}),
    "uneven last accumulation": (
        lambda: Net(sgd), {"fraction": 0.5}, 10, {"accumulate_grad_batches": 2, "loader": Loader(5)},
    ),
    "accumulation by epoch": (
        lambda: Net(sgd), {"fraction": 0.5}, ALL // 2, {"scheduler": GradientAccumulationScheduler({0: 1, 1: 2})},
    ),
    # Steps of the optimizer that holds the stage.
    "steps, two optimizers": (lambda: Manual(two), {"step": 6}, 6, {}),
    "steps, accumulating by hand": (lambda: Manual(sgd, 2), {"step": 3}, 6, {}),
    "steps, a batch without a loss": (lambda: Skipping(sgd, (0, 1)), {"step": 3}, 4, {}),
    "steps since, a batch without a loss": (lambda: Skipping(sgd, (0, 1)), {"after": {"steps": 3}}, 4, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    every(
        CASES,
        fast=["two optimizers", "not amid an accumulation by hand", "batches without a loss", "steps, two optimizers"],
    ),
)
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_where_a_stage_thaws(tmp_path, case) -> None:
    build, at, expected, arguments = CASES[case]
    callbacks = [arguments["scheduler"]] if "scheduler" in arguments else []
    arguments = {key: value for key, value in arguments.items() if key != "scheduler"}
    assert thaw_batch(tmp_path, build(), at, *callbacks, **arguments) == expected


@pytest.mark.parametrize(("epoch", "batch"), every([(0, 0), (1, 0), (1, 1), (1, 3)], fast=["(1, 0)"]))
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_batch_without_a_loss_is_no_step_of_a_warmup_or_a_check(tmp_path, epoch, batch) -> None:
    """Its first step after the thaw is the first one that has a gradient."""
    stages = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "warmup_steps": 4}}
    lrs = StepTrace(lambda trainer, module: (module.head.weight.grad is not None, live_lrs(trainer, module)))
    fit(Skipping(sgd, (epoch, batch)), tmp_path, StagedUnfreeze(stages), lrs, epochs=3)
    warmup = [lr["backbone"] for has_gradient, lr in lrs.steps if has_gradient and "backbone" in lr]
    assert warmup[:5] == [0.1 * factor for factor in (0.25, 0.5, 0.75, 1.0, 1.0)]


def test_the_length_of_a_schedule_that_the_module_steps_is_refused_unless_given(tmp_path) -> None:
    def configure(**scheduler: Any) -> Any:
        factory = SchedulerFactory("cosine_annealing", **scheduler)
        return lambda module: configure_optimizers(module, OptimizerFactory("sgd", lr=0.1), factory)

    for options in ({}, {"total_steps": None}):
        with pytest.raises(ConfigError, match=r"scheduler\.total_steps: unknown, because .*automatic_optimization"):
            fit(Manual(configure(**options)), tmp_path, epochs=1)
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_epochs: unknown.*Type for example scheduler\.warmup_ste"):
        fit(Manual(configure(warmup_epochs=1, total_steps=8)), tmp_path, epochs=2)
    fit(Manual(configure(total_steps=8)), tmp_path, epochs=1)
    fit(Manual(configure(interval="epoch")), tmp_path, epochs=2)


def test_a_fit_without_batches_needs_no_length(tmp_path) -> None:
    scheduler = SchedulerFactory("warmup_cosine", warmup_steps=2)
    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("sgd", lr=0.1), scheduler))
    assert thaw_batch(tmp_path, module, {"fraction": 0.5}, limit_train_batches=0) is None
