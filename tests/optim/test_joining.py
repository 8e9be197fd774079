"""Groups that join an optimizer: at any time, with names or without, and always with the same keys."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.core.param_group_keys import ALGORITHM
from lightning_optim.optim.composite import Composite
from tests.support.cases import each_value
from tests.support.save_and_load import save_and_load

BODY = {"params": "body", "kinds": ["matrix"]}
MAINS = ("adamw", "adam", "rmsprop", "nadam", "radam", "adagrad", "adadelta", "adamax", "sgd", "lion", "adopt")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "own": {"implementation": "own"},
    "skip_nonfinite": {"skip_nonfinite": True},
    "cautious_update": {"cautious_update": True},
    "lookahead": {"lookahead": {"k": 2}},
    "master_weights": {"master_weights": True},
    "centralize_gradients": {"centralize_gradients": True},
}


def new_model() -> nn.ModuleDict:
    return nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})


def build(main: str, options: str) -> tuple[nn.ModuleDict, Optimizer]:
    model = new_model()
    hidden = {**BODY, "optimizer": "adan" if main == "lion" else "lion"}
    return model, OptimizerFactory(main, lr=1e-3, groups={"hidden": hidden}, **OPTIONS[options])(model)


def step(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    optimizer.step()


def loaded(main: str, options: str, optimizer: Optimizer) -> Optimizer:
    other = build(main, options)[1]
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    return other


@pytest.mark.parametrize(
    ("main", "options"),
    each_value(
        [pair for pair in product(MAINS, OPTIONS) if pair[0] != "sgd" or pair[1] == "plain"],  # torch's only
        fast=["adamw,own", "adamw,plain", "lion,cautious_update"],
        id=",".join,
    ),
)
def test_a_group_joins_a_composite_at_any_time_with_the_same_keys(main: str, options: str) -> None:
    """Before and after steps, a load, a copy and a pickle; to each of the two algorithms; with and without names."""
    times: dict[str, Callable[[Optimizer], Optimizer]] = {
        "at first": lambda optimizer: optimizer,
        "after steps": lambda optimizer: (step(optimizer), step(optimizer), optimizer)[2],
        "after a load": lambda optimizer: loaded(main, options, (step(optimizer), optimizer)[1]),
        "after a copy": copy.deepcopy,
        "after a pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    }
    keys: dict[Any, set[str]] = {}
    for when, named, other in product(times, (True, False), (True, False)):
        optimizer = times[when](build(main, options)[1])
        late = nn.Parameter(torch.ones(3))
        algorithm = next(g[ALGORITHM] for g in optimizer.param_groups if (g[ALGORITHM] != main) == other)
        optimizer.add_param_group({"params": [("late", late)] if named else late, ALGORITHM: algorithm})
        step(optimizer)
        assert not torch.equal(late, torch.ones(3)) or main == "adopt", (when, named)
        group = optimizer.param_groups[-1]
        assert keys.setdefault(other, set(group)) == set(group), (when, named)
        first = next(g for g in optimizer.param_groups if g[ALGORITHM] == algorithm)
        assert set(first) - {"configured"} == set(group) - {"configured"}, (when, named)


class Counting(torch.optim.Optimizer):
    """Somebody else's class, whose defaults have no `differentiable`: torch adds it at a load."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.data.sub_(param.grad, alpha=group["lr"])


@pytest.mark.parametrize("change", [copy.deepcopy, lambda o: (o.load_state_dict(o.state_dict()), o)[1]])
def test_a_load_or_copy_adds_no_key_to_later_groups_of_somebody_elses_child(change: Any) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], ALGORITHM: name} for name in ("adamw", "counting")]
    builders = {"adamw": optim.AdamW, "counting": Counting}
    optimizer = change(Composite(groups, builders, main="adamw"))
    before = set(optimizer.param_groups[1])
    optimizer.children["counting"].add_param_group({"params": nn.Parameter(torch.ones(1)), ALGORITHM: "counting"})
    assert set(optimizer.children["counting"].param_groups[-1]) == before
    assert "differentiable" not in optimizer.defaults


# Names


def test_tensors_without_names_get_those_of_their_positions() -> None:
    model = new_model()
    optimizer = optim.Lion(model["body"].named_parameters())
    optimizer.add_param_group({"params": model["head"].parameters()})
    optimizer.param_groups.pop(0)  # the next number is taken
    optimizer.add_param_group({"params": nn.Parameter(torch.ones(1))})
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["param_groups.1.0", "param_groups.1.1"],
        ["param_groups.2.0"],
    ]


def test_groups_without_names_get_those_of_their_positions_when_a_named_one_joins() -> None:
    optimizer = optim.Lion([{"params": list(nn.Linear(3, 2).parameters())}, {"params": [nn.Parameter(torch.ones(1))]}])
    optimizer.add_param_group({"params": [("late", nn.Parameter(torch.ones(2)))]})
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["param_groups.0.0", "param_groups.0.1"],
        ["param_groups.1.0"],
        ["late"],
    ]


def test_a_refused_group_changes_no_name() -> None:
    optimizer = optim.Lion([nn.Parameter(torch.ones(1))])
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(ConfigError, match="momentum"):
        optimizer.add_param_group({"params": [("late", nn.Parameter(torch.ones(2)))], "momentum": 0.9})
    assert [set(group) for group in optimizer.param_groups] == [set(group) for group in before]


def test_a_group_without_a_name_gets_one_that_no_other_has() -> None:
    params = [nn.Parameter(torch.ones(1)) for _ in range(5)]
    optimizer = optim.Lion([{"params": [params[0]], "name": "group1"}])
    for param in params[1:3]:
        optimizer.add_param_group({"params": param})
    optimizer.add_param_group({"params": params[3], "name": "head"})
    assert [group["name"] for group in optimizer.param_groups] == ["group1", "group2", "group3", "head"]
    nameless = optim.Lion([params[4]])
    nameless.add_param_group({"params": nn.Parameter(torch.ones(1))})
    assert not any("name" in group for group in nameless.param_groups)


@pytest.mark.parametrize("bare_first", [True, False])
def test_positional_names_load_what_was_saved(bare_first: bool) -> None:
    def run() -> tuple[list[nn.Parameter], Optimizer]:
        model = new_model()
        parts = [list(model["body"].named_parameters()), list(model["head"].parameters())]
        first, second = reversed(parts) if bare_first else parts
        optimizer = optim.AdamW(first)
        optimizer.add_param_group({"params": second})
        return list(model.parameters()), optimizer

    (_, optimizer), (_, other) = run(), run()
    step(optimizer)
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    states = [[o.state[p]["exp_avg"] for g in o.param_groups for p in g["params"]] for o in (optimizer, other)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
