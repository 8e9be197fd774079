"""Groups with another library's keys: let in by name, stored, saved, and not used."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.save_and_load import save_and_load

KEYS = ["rho", "adaptive"]


class SAM(Optimizer):
    """The constructor of davda54/sam and kozistr's SAM: the base optimizer gets the groups, with `rho` in them."""

    def __init__(self, params: Any, base_optimizer: Any, rho: float = 0.05, adaptive: bool = False, **kwargs: Any):
        super().__init__(params, dict(rho=rho, adaptive=adaptive, **kwargs))
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups


def param() -> nn.Parameter:
    return nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("cls", [optim.AdamW, optim.Lion])
@pytest.mark.parametrize("through", ["sam", "partial"])
def test_sam_wraps_an_optimizer_of_ours(cls: Any, through: str) -> None:
    def build(rho: float) -> Optimizer:
        if through == "sam":
            return SAM([param()], cls, rho=rho, lr=0.1, extra_group_keys=KEYS).base_optimizer
        return SAM([param()], partial(cls, extra_group_keys=KEYS), rho=rho, lr=0.1).base_optimizer

    optimizer, plain = build(0.3), cls([param()], lr=0.1)
    for one in (optimizer, plain):
        one.param_groups[0]["params"][0].grad = torch.tensor([1.0, -2.0])
        one.step()
    assert torch.equal(optimizer.param_groups[0]["params"][0], plain.param_groups[0]["params"][0])
    other = copy.deepcopy(build(0.7))
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    assert (other.param_groups[0]["rho"], other.param_groups[0]["adaptive"]) == (0.3, False)
    other.load_state_dict(save_and_load(plain.state_dict()))  # knows of no rho: it stays
    assert other.param_groups[0]["rho"] == 0.3
    other.add_param_group({"params": param(), "rho": 0.9})
    assert other.param_groups[1]["rho"] == 0.9


def test_a_group_may_name_its_own() -> None:
    optimizer = optim.Lion([param()])
    optimizer.add_param_group({"params": param(), "lr_scale": 0.5, "extra_group_keys": ["lr_scale"]})
    assert optimizer.param_groups[1]["lr_scale"] == 0.5
    with pytest.raises(ConfigError, match="lr_scale"):
        optimizer.add_param_group({"params": param(), "lr_scale": 0.5})


@pytest.mark.parametrize("algorithm", ["adamw", "lion"])
def test_a_composite_takes_them_for_each_child(algorithm: str) -> None:
    groups = {"bias": {"kinds": ["bias"], "optimizer": "lion"}}
    optimizer = OptimizerFactory("adamw", implementation="own", groups=groups)(nn.Linear(3, 2))
    late = {"params": [("late", param())], "algorithm": algorithm, "rho": 1.0}
    with pytest.raises(ConfigError, match=r'type extra_group_keys=\["rho"\] in the constructor or in the group'):
        optimizer.add_param_group(late)
    optimizer.add_param_group({**late, "extra_group_keys": ["rho"]})
    assert optimizer.state_dict()["param_groups"][-1]["rho"] == 1.0


def test_an_unknown_key_says_how_to_let_all_of_them_in() -> None:
    with pytest.raises(ConfigError, match=r'param_groups\[0\].rho: .*\. If .* type extra_group_keys=\["rho", "adap'):
        SAM([param()], optim.AdamW, lr=0.1)
    with pytest.raises(ConfigError, match=r"^rho: AdamW has no hyperparameter 'rho'") as caught:
        optim.AdamW([param()], rho=0.1)
    assert "extra_group_keys" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (optim.Adadelta, ["rho"], "extra_group_keys: rho is a key of this optimizer itself"),
        (optim.AdamW, ["lr"], "lr is a key of this optimizer"),
        (optim.AdamW, ["differentiable"], "differentiable is a key"),
        (optim.AdamW, ["param_names"], "param_names is a key"),
        (optim.AdamW, "rho", "got 'rho', which is not a list of names"),
        (optim.AdamW, [1], r"got \[1\], which is not a list of names"),
    ],
)
def test_what_is_ours_is_not_let_in(cls: Any, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls([param()], extra_group_keys=given)
    with pytest.raises(ConfigError, match=rf"param_groups\[0\]\..*{message.removeprefix('extra_group_keys: ')}"):
        cls([{"params": [param()], "extra_group_keys": given}])
