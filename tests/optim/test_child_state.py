"""State of a composite's children under keys that are no parameter, as facebookresearch's MADGRAD has it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, register_optimizer
from tests.support.cases import every
from tests.support.save_and_load import save_and_load


class Counting(torch.optim.Optimizer):
    """Counts its steps in `state["k"]`, from which it takes the size of a step."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        del closure
        k = self.state.setdefault("k", torch.zeros(1))
        k += 1
        for group in self.param_groups:
            for param in (p for p in group["params"] if p.grad is not None):
                param.sub_(param.grad, alpha=group["lr"] / float(k))


class CountingTwice(Counting):
    """Another class with the same key, that counts by two."""

    def step(self, closure: Any = None) -> None:
        super().step()
        self.state["k"] += 1


BIAS = {"kinds": ["bias"], "lr": 0.1}
GROUPS: dict[str, Any] = {
    "one, beside torch's": {"b": {**BIAS, "optimizer": "adam"}},
    "one, beside ours": {"b": {**BIAS, "optimizer": "lion"}},
    "two": {"b": {**BIAS, "optimizer": "counting_twice"}},
    "two, beside ours": {
        "b": {**BIAS, "optimizer": "counting_twice"},
        "n": {"classes": "LayerNorm", "kinds": ["norm"], "optimizer": "lion", "priority": 1},
    },
}


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_optimizer("counting", Counting)
    register_optimizer("counting_twice", CountingTwice)


def new_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))


def train(net: nn.Module, optimizer: Any, num_steps: int = 3) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        net(torch.tensor([1.0, -2.0, 3.0])).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", every(GROUPS, fast=["one, beside torch's", "two"]))
@pytest.mark.parametrize("how", ["load", "copy", "pickle"])
def test_a_resumed_run_is_the_uninterrupted_one(name: str, how: str) -> None:
    factory = OptimizerFactory("counting", lr=0.1, groups=GROUPS[name])
    through, resumed = new_net(), new_net()
    whole, first = factory(through), factory(resumed)
    train(through, whole, 6)
    train(resumed, first)
    if how == "load":
        saved = first.state_dict()  # not from a file: what is loaded must be a copy
        other = factory(resumed)
        other.load_state_dict(saved)
        train(resumed, other)
        assert float(saved["state"]["counting.k" if name.startswith("two") else "k"]) == 3
    else:
        change = copy.deepcopy if how == "copy" else lambda both: pickle.loads(pickle.dumps(both))
        resumed, other = change((resumed, first))
        train(resumed, other)
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))


def test_each_child_counts_for_itself() -> None:
    net, alone = new_net(), new_net()
    optimizer = OptimizerFactory("counting", lr=0.1, groups=GROUPS["two"])(net)
    one = Counting([p for n, p in alone.named_parameters() if not n.endswith("0.bias") and n != "1.bias"])
    two = CountingTwice([p for n, p in alone.named_parameters() if n.endswith("bias")])
    train(net, optimizer, 4)
    for _ in range(4):
        alone.zero_grad()
        alone(torch.tensor([1.0, -2.0, 3.0])).square().sum().backward()
        one.step(), two.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), alone.parameters(), strict=True))
    assert (float(optimizer.state["counting.k"]), float(optimizer.state["counting_twice.k"])) == (4, 8)
    assert "k" not in optimizer.state


def test_a_checkpoint_from_before_loads() -> None:
    factory = OptimizerFactory("counting", lr=0.1, groups=GROUPS["one, beside ours"])
    net = new_net()
    optimizer = factory(net)
    train(net, optimizer)
    saved = optimizer.state_dict()
    del saved["state"]["k"]
    other = factory(net)
    other.load_state_dict(saved)
    train(net, other, 1)
    assert float(other.state["k"]) == 1


def test_what_others_put_into_the_state_of_a_composite_is_saved() -> None:
    net = nn.Linear(3, 2)
    factory = OptimizerFactory("adamw", groups={"b": {**BIAS, "optimizer": "lion"}})
    optimizer, other = factory(net), factory(net)
    optimizer.state["note"] = {"a": 1}
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    assert other.state["note"] == {"a": 1}
