"""Promises of the README that no other test holds: see docs/promises.md."""

from __future__ import annotations

import copy
import functools
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import strategies
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, OptimizerMonitor, SchedulerFactory
from lightning_optim.catalog.built_in import BUILT_IN

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_the_optimizers_of_the_catalog() -> None:
    paragraph = README[README.index("All of torch's optimizers, and this library's own") :]
    listed = re.findall(r"`(\w+)`", paragraph[: paragraph.index("`lightning-optim show NAME`")])
    assert sorted(listed) == sorted(name for name, info in BUILT_IN.items() if info.own)


def test_a_checkpoint_with_a_partial_of_hydra_does_not_load_and_one_with_factories_does(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    factories = {"optimizer": OptimizerFactory("sgd"), "scheduler": SchedulerFactory("constant")}
    torch.save({"hyper_parameters": factories}, path)
    assert torch.load(path, weights_only=True)["hyper_parameters"] == factories
    torch.save({"hyper_parameters": {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)}}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"functools\.partial"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_the_monitor_refuses_strategies_whose_optimizers_have_pieces_of_parameters(name: str) -> None:
    cls = getattr(strategies, name)
    trainer = SimpleNamespace(strategy=cls.__new__(cls), loggers=[object()])
    with pytest.raises(ConfigError, match=rf"^monitor: trainer\.strategy: under {name} .*flattened pieces"):
        OptimizerMonitor().setup(trainer, nn.Linear(1, 1), "fit")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copied", "pickled"])
def test_a_copied_optimizer_loads_by_name(copied) -> None:
    net = nn.ModuleDict({"head": nn.Linear(2, 2), "backbone": nn.Linear(2, 2)})
    optimizer = OptimizerFactory("sgd", lr=1.0, groups={"head": {"params": "head", "lr": 0.5}})(net)
    state = optimizer.state_dict()
    state["param_groups"].reverse()
    other = copied(optimizer)
    other.load_state_dict(state)
    assert [(group["name"], group["lr"]) for group in other.param_groups] == [("head", 0.5), ("default", 1.0)]
