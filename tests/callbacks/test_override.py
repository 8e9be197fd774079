"""OptimizerOverride: a configured optimizer for a module that nobody may edit, beside other callbacks in any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_optim import OptimizerFactory, OptimizerOverride, SchedulerFactory, StagedUnfreeze
from tests.support.training import BATCHES, Net, Witness, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


def _module() -> Net:
    return Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))


def test_replaces_the_modules_own_for_the_time_of_the_fit(tmp_path) -> None:
    override = OptimizerOverride(OptimizerFactory("adamw", lr=0.1), SchedulerFactory("exponential", gamma=0.5))
    witness, module = Witness(), _module()
    trainer = fit(module, tmp_path, override, witness, epochs=1)
    assert type(trainer.optimizers[0]) is torch.optim.AdamW
    assert witness.seen == [{"default": 0.1 * 0.5**t} for t in range(BATCHES)]
    assert type(module.configure_optimizers()) is torch.optim.SGD


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["override first", "unfreeze first"])
def test_stands_with_the_unfreeze_in_any_order(tmp_path, order) -> None:
    callbacks: list[Any] = [OptimizerOverride(OptimizerFactory("adamw", lr=0.1)), StagedUnfreeze(PLAN)]
    witness = Witness()
    fit(_module(), tmp_path, *(callbacks[index] for index in order), witness, epochs=2)
    assert [list(step) for step in witness.seen] == [["head"]] * BATCHES + [["head", "backbone"]] * BATCHES
