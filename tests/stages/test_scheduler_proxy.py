"""SchedulerProxy: schedulers drive copies of the param groups, and the optimizer is found wherever they refer to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ChainedScheduler, ExponentialLR, SequentialLR

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from lightning_optim.stages.scheduler_proxy import SchedulerProxy, drives


def build_optimizer() -> SGD:
    return SGD([{"params": [nn.Parameter(torch.ones(2))], "lr": torch.tensor(lr)} for lr in (0.5, 0.25)])


def test_schedulers_change_the_proxy_and_not_the_optimizer() -> None:
    optimizer = build_optimizer()
    scheduler = ExponentialLR(optimizer, 0.5)
    proxy = SchedulerProxy(optimizer)
    proxy.retarget(scheduler, optimizer)
    scheduler.step()
    assert [float(group["lr"]) for group in proxy.param_groups] == [0.25, 0.125]
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.25]


def test_proxy_cannot_step() -> None:
    with pytest.raises(RuntimeError, match="step the optimizer itself"):
        SchedulerProxy(build_optimizer()).step()


def build_sequential(optimizer: SGD) -> SequentialLR:
    return SequentialLR(optimizer, [ExponentialLR(optimizer, 0.5), ExponentialLR(optimizer, 0.9)], milestones=[3])


def build_chained(optimizer: SGD) -> ChainedScheduler:
    return ChainedScheduler([ExponentialLR(optimizer, 0.5), ExponentialLR(optimizer, 0.9)], optimizer)


@pytest.mark.parametrize("build", [build_sequential, build_chained])
def test_schedulers_inside_a_scheduler_are_retargeted_too(build) -> None:
    optimizer = build_optimizer()
    scheduler = build(optimizer)
    assert drives(scheduler, optimizer)
    assert not drives(scheduler, build_optimizer())
    proxy = SchedulerProxy(optimizer)
    proxy.retarget(scheduler, optimizer)
    assert not drives(scheduler, optimizer)
    assert [inner.optimizer for inner in scheduler._schedulers] == [proxy, proxy]


def test_views_of_a_scheduler_by_group_are_retargeted_too() -> None:
    net = nn.ModuleDict({"body": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    optimizer = OptimizerFactory("sgd", groups={"head": {"params": "head", "schedule": "constant"}})(net)
    scheduler = SchedulerFactory("exponential", gamma=0.5)(optimizer)
    proxy = SchedulerProxy(optimizer)
    proxy.retarget(scheduler, optimizer)
    assert not drives(scheduler, optimizer)
    assert [view.optimizer for view in scheduler._views] == [proxy, proxy]


def test_state_without_names_and_with_another_number_of_groups_is_refused() -> None:
    saved = SchedulerProxy(build_optimizer()).state_dict()
    with pytest.raises(ConfigError, match="was configured with 1 param groups, this run's with 2"):
        SchedulerProxy(build_optimizer()).load_state_dict(saved[:1])
