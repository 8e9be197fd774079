"""A name in a config is looked up in a registry; a dotted path in its place is never imported or called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze, optimizer_info
from tests.support.hostile_targets import MARK, MODULE, hostile_targets, write_hostile_files

MODEL = nn.Sequential(nn.Linear(2, 2))


def with_rule(**rule: Any) -> Any:
    return OptimizerFactory("adamw", groups={"late": {"params": "0.*", **rule}})(MODEL)


PLACES: dict[str, Callable[[str], Any]] = {
    "optimizer": lambda name: OptimizerFactory(name),
    "optimizer of a rule": lambda name: with_rule(optimizer=name),
    "schedule of a rule": lambda name: with_rule(lr=0.1, schedule={"name": name}),
    "class of a module": lambda name: with_rule(lr=0.1, classes=[name]),
    "implementation": lambda name: OptimizerFactory("adamw", implementation=name),
    "scheduler": lambda name: SchedulerFactory(name),
    "block of a schedule": lambda name: SchedulerFactory("sequential", milestones=[2], schedulers=[{"name": name}] * 2),
    "optimizer of a stage": lambda name: StagedUnfreeze({"late": {"params": "0.*", "optimizer": name}}).explain(
        MODEL, OptimizerFactory("adamw")
    ),
    "name for its description": optimizer_info,
}


@pytest.mark.parametrize("place", PLACES)
def test_no_name_is_imported_or_called(place, tmp_path, monkeypatch):
    write_hostile_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for node in hostile_targets(tmp_path):
        with pytest.raises(ConfigError):
            PLACES[place](node["_target_"])
        assert not (tmp_path / MARK).exists(), node
        assert MODULE not in sys.modules, node
