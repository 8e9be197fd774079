"""A staged run resumes bitwise under every scheduler: torch's, a third party's, and those of SchedulerFactory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import lr_scheduler

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.schedules import SCHEDULE_CONFIGS
from tests.support.torch_schedulers import HAND_MADE_SCHEDULERS
from tests.support.training import BATCHES, Net, StepTrace, fit

EPOCHS = 3
PLAN = {
    "head": {"params": "head"},
    "norm": {"params": "backbone.1", "at": {"step": 2}, "weight_decay": 0.25},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 3},
}
# Before, at and after a thaw (2), after another (4), at the end of an epoch (8), the last but one.
RESUMED_STEPS = (1, 2, 3, 5, 8, 11)
GROUPS = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}, "head": {"params": "head", "lr_scale": 2.0}}


class Losses(Callback):
    """The loss of each batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def by_hand(name: str) -> Any:
    def configure(module: Net) -> Any:
        biases = [p for name, p in module.named_parameters() if name.endswith("bias")]
        weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
        groups = [{"params": weights}, {"params": biases, "lr": 0.05}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        config = {"scheduler": HAND_MADE_SCHEDULERS[name](optimizer), "interval": "step", "monitor": "loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    return configure


def by_factory(name: str) -> Any:
    config = copy.deepcopy(SCHEDULE_CONFIGS[name])
    monitor = {"monitor": "loss"} if config["name"] == "reduce_on_plateau" else {}
    optimizer, scheduler = OptimizerFactory("adamw", lr=0.1, groups=GROUPS), SchedulerFactory(**config, **monitor)
    return lambda module: configure_optimizers(module, optimizer, scheduler)


def run(folder: Path, configure: Any, accumulate: int, ckpt_path: Path | None = None) -> Any:
    """The states at the end, the lrs of each step, and the losses."""
    torch.manual_seed(0)
    module, trace, losses = Net(configure, dropout=0.3), StepTrace(), Losses()
    trainer = fit(
        module, folder, StagedUnfreeze(PLAN), RNGState(), trace, losses, epochs=EPOCHS, ckpt_path=ckpt_path,
        save=ckpt_path is None, seed=1 if ckpt_path is None else 2, accumulate_grad_batches=accumulate,
    )  # fmt: skip
    states = [module.state_dict(), trainer.optimizers[0].state_dict()]
    scheduler = trainer.lr_scheduler_configs[0].scheduler.state_dict()
    objects = {"lr_lambdas", "_schedulers"}  # each run has its own
    states.append({key: value for key, value in scheduler.items() if key not in objects})
    return states, trace.steps, losses.values


FACTORY_SCHEDULES = ("one_cycle", "sequential", "reduce_on_plateau", "noam", "chained")
CASES = [
    *((by_hand, name, 1 + position % 2) for position, name in enumerate(HAND_MADE_SCHEDULERS)),
    # Accumulating or not by turns; torch's classes are those that are tried by hand.
    *((by_factory, name, 1 + position % 2) for position, name in enumerate(FACTORY_SCHEDULES)),
]


def case_id(case: tuple[Any, str, int]) -> str:
    how, name, accumulate = case
    return f"{how.__name__} {name}" + (", accumulating" if accumulate > 1 else "")


@pytest.mark.parametrize(
    ("how", "name", "accumulate"),
    every(CASES, fast=["by_factory sequential, accumulating"], id=case_id),
)
def test_resumes_bitwise(how, name, accumulate, tmp_path) -> None:
    states, lrs, losses = run(tmp_path, how(name), accumulate)
    for step in RESUMED_STEPS:
        if step >= EPOCHS * BATCHES // accumulate:
            break
        checkpoint = tmp_path / f"step={step}.ckpt"
        resumed_states, resumed_lrs, resumed_losses = run(tmp_path / "resumed", how(name), accumulate, checkpoint)
        assert resumed_lrs == lrs[step:], step
        assert resumed_losses == losses[step * accumulate :], step
        assert equal(resumed_states, states), step


def test_every_scheduler_of_torch_is_among_them() -> None:
    groups = [{"params": [torch.ones(1)]}, {"params": [torch.ones(1)]}]
    built = {type(make(torch.optim.SGD(copy.deepcopy(groups), lr=0.1))) for make in HAND_MADE_SCHEDULERS.values()}
    assert {getattr(lr_scheduler, name) for name in lr_scheduler.__all__} - built == {lr_scheduler.LRScheduler}
