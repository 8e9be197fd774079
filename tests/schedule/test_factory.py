"""SchedulerFactory: Lightning's dict, resuming what it built, and that calling it changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, SchedulerFactory
from tests.support.cases import every
from tests.support.save_and_load import save_and_load
from tests.support.schedules import SCHEDULE_CONFIGS, step_scheduler

EACH_STATE = ["cyclic", "one_cycle", "reduce_on_plateau", "lambda", "warmup_cosine", "warmup+sequential", "chained"]
"""One schedule per kind of state: attributes of torch's class, of a lambda, of our curves, of inner schedulers."""


def build_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.4, 0.05)]
    return torch.optim.SGD(groups, momentum=0.9)


def record(scheduler: Any, first: int, last: int) -> list[list[tuple[float, float]]]:
    """Each group's lr and momentum at each step."""
    found = []
    for t in range(first, last):
        found.append([(group["lr"], group["momentum"]) for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        step_scheduler(scheduler, t)
    return found


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_config_is_lightning_s_dict(interval) -> None:
    config = SchedulerFactory("warmup_cosine", interval=interval).config(build_optimizer(), 10)
    scheduler = config.pop("scheduler")
    assert type(scheduler) is lr_scheduler.LambdaLR
    assert config == {"interval": interval, "frequency": 1}


def test_config_of_reduce_on_plateau_has_its_monitor() -> None:
    config = SchedulerFactory("reduce_on_plateau", interval="epoch", monitor="val/loss").config(build_optimizer())
    assert type(config.pop("scheduler")) is lr_scheduler.ReduceLROnPlateau
    assert config == {"interval": "epoch", "frequency": 1, "monitor": "val/loss", "reduce_on_plateau": True}


def test_config_of_reduce_on_plateau_without_a_monitor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^monitor: reduce_on_plateau .* monitor: val/loss"):
        SchedulerFactory("reduce_on_plateau").config(build_optimizer())


@pytest.mark.parametrize("name", every(SCHEDULE_CONFIGS, fast=EACH_STATE))
def test_run_resumes_from_its_state_dicts(name) -> None:
    factory = SchedulerFactory(**SCHEDULE_CONFIGS[name])
    scheduler = factory(build_optimizer())
    record(scheduler, 0, 12)
    optimizer_state, scheduler_state = save_and_load([scheduler.optimizer.state_dict(), scheduler.state_dict()])
    resumed = factory(build_optimizer())
    resumed.optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(scheduler_state)
    assert record(resumed, 12, 24) == record(scheduler, 12, 24)


@pytest.mark.parametrize("name", every(SCHEDULE_CONFIGS, fast=EACH_STATE))
def test_calling_changes_neither_the_factory_nor_its_arguments(name) -> None:
    given = SCHEDULE_CONFIGS[name]
    before, factory = copy.deepcopy(given), SchedulerFactory(**given)
    attributes = copy.deepcopy(vars(factory))
    record(factory(build_optimizer()), 0, 8)
    assert vars(factory) == attributes
    assert given == before
