"""Training runs that are saved under one config and loaded under another, for the tests of loading by name."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.parameters import read_parameters
from tests.support.equality import equal
from tests.support.models import Deep, weights_of
from tests.support.save_and_load import save_and_load
from tests.support.schedules import step_scheduler

MUON = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.08}}
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "torch adamw": ({"name": "adamw", "lr": 0.04}, {}),
    "own adamw": ({"name": "adamw", "lr": 0.04, "implementation": "own"}, {}),
    "torch sgd": ({"name": "sgd", "lr": 0.05, "momentum": 0.9}, {}),
    "torch amsgrad": ({"name": "adam", "lr": 0.04, "amsgrad": True, "foreach": True}, {}),
    "torch adagrad": ({"name": "adagrad", "lr": 0.05}, {}),
    "torch adafactor": ({"name": "adafactor", "lr": 0.05}, {}),
    "own adabelief": ({"name": "adabelief", "lr": 0.04}, {}),
    "own nadamw": ({"name": "nadamw", "lr": 0.04}, {}),
    "own lion": ({"name": "lion", "lr": 0.04}, {}),
    "muon + adamw": ({"name": "adamw", "lr": 0.04}, MUON),
    "muon + lion + sgd": (
        {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        {**MUON, "output": {"params": "head", "optimizer": "lion", "lr": 0.04}},
    ),
}
"""By case: the top level of the config, and the rules that every variant of the config has."""

SAVED = {
    "stem": {"params": "backbone.0", "lr_scale": 0.5},
    "norm": {"params": "backbone.1", "weight_decay": 0.125},
}
"""The rules of the saved run, besides those of the config."""
CHANGES: dict[str, dict[str, Any]] = {
    "same": SAVED,
    "added": {**SAVED, "late": {"params": "backbone.4", "lr_scale": 2.0}},
    "renamed": {"first": SAVED["stem"], "a_norm": SAVED["norm"]},
    "short names": {name: {**rule, "name": name[0]} for name, rule in SAVED.items()},
    "split": {**SAVED, "biases": {"params": "*.bias", "lr_scale": 1.0}},
    "split by depth": {**SAVED, "depth": {"layers": "backbone.{i}"}},
    "merged": {},
    "merged where equal": {
        "front": {"params": ["backbone.0", "backbone.1"], "lr_scale": 0.5, "weight_decay": 0.125},
    },
    "other rules": {"decay": {"params": "*.weight", "weight_decay": 0.5}},
    "reordered": SAVED,
}
"""By change: the rules of the resumed run; `reordered` passes the parameters in reverse."""
SAME_VALUES = ["same", "renamed", "short names", "split", "split by depth", "reordered"]
"""The changes after which every parameter still has the same hyperparameters."""
NEW_GROUPS = ["renamed", "short names", "split by depth", "reordered"]
"""Those of them that change the names, the number or the order of the groups."""

SCHEDULED = ("lr", "betas", "momentum")
"""The values of a param group that schedulers change."""


def build_factory(config: str, rules: dict[str, Any]) -> OptimizerFactory:
    top_level, always = CONFIGS[config]
    return OptimizerFactory(**top_level, groups={**always, **rules})


def build(config: str, change: str, model: nn.Module) -> Any:
    return build_factory(config, CHANGES[change])(read_parameters(model)[::-1] if change == "reordered" else model)


def step(model: Deep, optimizer: Any, scheduler: Any, t: int) -> None:
    optimizer.zero_grad()
    model.loss(t).backward()
    optimizer.step()
    if scheduler is not None:
        step_scheduler(scheduler, t)


def run(model: Deep, optimizer: Any, first: int, last: int, scheduler: Any = None) -> list[list[Tensor]]:
    """The weights after each of the steps from `first` to `last - 1`."""
    weights = []
    for t in range(first, last):
        step(model, optimizer, scheduler, t)
        weights.append(weights_of(model))
    return weights


def train_saved(config: str, rules: dict[str, Any] = SAVED, num_steps: int = 4) -> tuple[Deep, Any]:
    """A model and its optimizer after a few steps."""
    model = Deep()
    optimizer = build_factory(config, rules)(model)
    run(model, optimizer, 0, num_steps)
    return model, optimizer


def saved_states(config: str, change: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The optimizer's state dict after four steps, as loaded from a file, and each parameter's state by name."""
    return copy.deepcopy(_saved_states(config, change))


@cache
def _saved_states(config: str, change: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    model = Deep()
    optimizer = build(config, change, model)
    run(model, optimizer, 0, 4)
    return save_and_load(optimizer.state_dict()), states_by_name(model, optimizer)


def states_by_name(model: nn.Module, optimizer: Any) -> dict[str, dict[str, Any]]:
    """Each parameter's state by the model's name for it, whatever the param groups say."""
    return {name: copy.deepcopy(dict(optimizer.state[p])) for name, p in model.named_parameters()}


def values_by_name(model: nn.Module, optimizer: Any, *keys: str) -> dict[str, list[Any]]:
    """By parameter name: its group's values of these keys."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: [groups[id(p)].get(key) for key in keys] for name, p in model.named_parameters()}


def assert_names_are_right(model: nn.Module, optimizer: Any) -> None:
    """`param_names` are the names of `params`, and a composite's children share groups and state."""
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        assert all(p is parameters[name] for name, p in zip(group["param_names"], group["params"], strict=True))
    for name, child in getattr(optimizer, "children", {}).items():
        groups = [group for group in optimizer.param_groups if group["algorithm"] == name]
        assert all(a is b for a, b in zip(groups, child.param_groups, strict=True))
        assert child.state is optimizer.state


def assert_refused(
    model: Deep, optimizer: Any, state_dict: Any, *parts: str, error: type[Exception] = ConfigError
) -> None:
    """A load raises an error with these parts, and changes neither the optimizer nor the state dict."""
    run(model, optimizer, 0, 2)
    copied_model, copied_optimizer = copy.deepcopy((model, optimizer))
    groups = list(optimizer.param_groups)
    given = copy.deepcopy(state_dict)
    with pytest.raises(error) as caught:
        optimizer.load_state_dict(state_dict)
    assert [part for part in parts if part not in str(caught.value)] == [], caught.value
    assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
    assert equal(states_by_name(model, optimizer), states_by_name(copied_model, copied_optimizer))
    assert equal(state_dict, given)
    assert equal(run(model, optimizer, 2, 4), run(copied_model, copied_optimizer, 2, 4))


class OtherModel(Deep):
    """`Deep` with another head, or with a layer more or a bias less."""

    def __init__(self, head: int = 2, *, more: bool = False, less: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(8, head)
        if more:
            self.neck = nn.Linear(8, 8)
        if less:
            self.backbone[4].bias = None

    def loss(self, seed: int = 0) -> Tensor:
        extra = self.neck.weight.sum() + self.neck.bias.sum() if hasattr(self, "neck") else 0.0
        return super().loss(seed) + extra
