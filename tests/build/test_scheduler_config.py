"""Lightning's scheduler dict for an optimizer."""

from __future__ import annotations

import pytest
from torch.optim.lr_scheduler import LRScheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from lightning_optim.build.scheduler_config import scheduler_config
from tests.support.models import Tiny


def build_optimizer(**rule):
    return OptimizerFactory("sgd", lr=0.5, groups={"head": {"params": "head", "lr_scale": 0.5, **rule}})(Tiny())


def never_asked(*_):
    raise AssertionError("the length of the run is not needed")


def test_there_is_no_scheduler_where_every_lr_is_constant():
    assert scheduler_config(build_optimizer(), None, never_asked, never_asked) is None


def test_a_rule_s_schedule_alone_leaves_the_other_lrs_constant():
    optimizer = build_optimizer(schedule={"name": "exponential", "gamma": 0.5})
    config = scheduler_config(optimizer, None, never_asked, never_asked)
    for _ in range(2):
        optimizer.step()
        config["scheduler"].step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25 * 0.5**2]


def test_the_run_length_is_asked_in_the_scheduler_s_interval():
    lengths = {"step": 100, "epoch": 4}
    factory = SchedulerFactory("warmup_linear", interval="epoch")
    config = scheduler_config(build_optimizer(), factory, lengths.get, never_asked)
    assert isinstance(config["scheduler"], LRScheduler)
    assert config["interval"] == "epoch"
    lrs = []
    for _ in range(4):
        lrs.append(config["scheduler"].get_last_lr()[0])
        config["scheduler"].optimizer.step()
        config["scheduler"].step()
    assert lrs == [0.5, 0.375, 0.25, 0.125], "linear to 0 over 4 epochs"


def test_an_optimizer_factory_is_no_scheduler():
    with pytest.raises(ConfigError, match=r"^scheduler: got a OptimizerFactory, not a SchedulerFactory"):
        scheduler_config(build_optimizer(), OptimizerFactory("adamw"), never_asked, never_asked)
