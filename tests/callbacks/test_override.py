"""OptimizerOverride: a configured optimizer for a module that cannot be changed, combined with StagedUnfreeze."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_optim import OptimizerFactory, OptimizerOverride, SchedulerFactory, StagedUnfreeze
from tests.support.training import BATCHES, Net, StepTrace, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


def sgd_net() -> Net:
    return Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))


def test_replaces_the_module_s_configure_optimizers_for_the_fit_only(tmp_path) -> None:
    override = OptimizerOverride(OptimizerFactory("adamw", lr=0.1), SchedulerFactory("exponential", gamma=0.5))
    trace, module = StepTrace(), sgd_net()
    trainer = fit(module, tmp_path, override, trace, epochs=1)
    assert type(trainer.optimizers[0]) is torch.optim.AdamW
    assert trace.steps == [{"default": 0.1 * 0.5**t} for t in range(BATCHES)]
    assert type(module.configure_optimizers()) is torch.optim.SGD


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["override first", "unfreeze first"])
def test_works_with_unfreeze_in_any_order(tmp_path, order) -> None:
    callbacks: list[Any] = [OptimizerOverride(OptimizerFactory("adamw", lr=0.1)), StagedUnfreeze(PLAN)]
    trace = StepTrace()
    fit(sgd_net(), tmp_path, *(callbacks[index] for index in order), trace, epochs=2)
    assert [list(step) for step in trace.steps] == [["head"]] * BATCHES + [["head", "backbone"]] * BATCHES
