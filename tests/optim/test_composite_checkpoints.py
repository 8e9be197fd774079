"""Composite: saving, loading and copying several algorithms in one optimizer."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import optim
from lightning_optim.optim.composite import Composite
from tests.support.cases import every
from tests.support.composites import (
    MUON_ADAMW,
    PAIRS,
    Deep,
    check_children_share,
    check_refused_and_unchanged,
    each_factory,
    fit,
    new_group,
    trained,
    weights_of,
)
from tests.support.equality import equal
from tests.support.save_and_load import save_and_load


@each_factory
def test_a_state_dict_numbers_the_parameters_as_torch_does(factory) -> None:
    _, optimizer = trained(factory)
    state_dict = optimizer.state_dict()
    plain = torch.optim.SGD([{"params": group["params"]} for group in optimizer.param_groups], lr=0.1).state_dict()
    numbers = [group["params"] for group in state_dict["param_groups"]]
    assert numbers == [group["params"] for group in plain["param_groups"]]
    params = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert set(state_dict["state"]) == set(range(len(params)))
    for number, parameter in enumerate(params):
        assert state_dict["state"][number].keys() == optimizer.state[parameter].keys()
        assert equal(dict(state_dict["state"][number]), dict(optimizer.state[parameter]))
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        assert {**saved, "params": None}.items() >= {**group, "params": None}.items()


@each_factory
@pytest.mark.parametrize("at", every(range(1, 6), fast=["3"]))
def test_it_resumes_from_a_file(factory, at) -> None:
    model, again = Deep(), Deep()
    optimizer, resumed = factory(model), factory(again)
    fit(model, [optimizer], 0, at)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    check_children_share(resumed)
    assert equal(fit(model, [optimizer], at), fit(again, [resumed], at))
    assert equal(optimizer.state_dict(), resumed.state_dict())


@each_factory
def test_loading_a_checkpoint_without_states_removes_them(factory) -> None:
    model = Deep()
    optimizer = factory(model)
    start = save_and_load([model.state_dict(), optimizer.state_dict()])
    first = fit(model, [optimizer])
    model.load_state_dict(start[0])
    optimizer.load_state_dict(start[1])
    check_children_share(optimizer)
    assert len(optimizer.state) == len(start[1]["state"])
    assert equal(fit(model, [optimizer]), first)


def test_training_does_not_change_a_loaded_state_dict() -> None:
    model, optimizer = trained()
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict)
    resumed = MUON_ADAMW(model)
    resumed.load_state_dict(state_dict)
    resumed.param_groups[0]["lr"] = 7.0
    resumed.state.clear()
    assert equal(state_dict, before)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "deepcopy of a copy": lambda pair: copy.deepcopy(copy.deepcopy(pair)),
}


@each_factory
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_trains_separately_and_its_children_share_its_state(factory, copied) -> None:
    model, optimizer = trained(factory)
    before = weights_of(model)
    again, copy_of_it = copied((model, optimizer))
    check_children_share(copy_of_it)
    copied_ids = {id(p) for p in again.parameters()}
    assert all(id(p) in copied_ids for group in copy_of_it.param_groups for p in group["params"])
    after = fit(again, [copy_of_it], 3)
    assert equal(weights_of(model), before)
    assert equal(fit(model, [optimizer], 3), after)
    assert equal(optimizer.state_dict(), copy_of_it.state_dict())
    check_children_share(optimizer), check_children_share(copy_of_it)


def test_a_copy_still_takes_groups_scalers_and_checkpoints() -> None:
    model, optimizer = copy.deepcopy(trained())
    assert not optimizer._step_supports_amp_scaling
    optimizer.add_param_group(new_group(algorithm="muon"))
    assert optimizer.children["muon"].param_groups[-1] is optimizer.param_groups[-1]
    optimizer.load_state_dict(save_and_load(optimizer.state_dict()))
    check_children_share(optimizer)
    fit(model, [optimizer])


def without(key: str, name: str) -> Any:
    """Removes a key from the state of one parameter."""

    def damage(state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if name in group["param_names"]:
                del state_dict["state"][group["params"][group["param_names"].index(name)]][key]

    return damage


def cut_to(size: int, key: str, name: str) -> Any:
    """Cuts a buffer to its first rows."""

    def damage(state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if name in group["param_names"]:
                state = state_dict["state"][group["params"][group["param_names"].index(name)]]
                state[key] = state[key][:size]

    return damage


def with_another_algorithm(state_dict: dict[str, Any]) -> None:
    for group in state_dict["param_groups"]:
        group["algorithm"] = "adamw"


def without_last_group(state_dict: dict[str, Any]) -> None:
    state_dict["param_groups"].pop()


DAMAGES = {
    "buffer of the first child missing": ("muon + adamw", without("exp_avg_sq", "head.bias"), "head.bias"),
    "buffer of the last child missing": (
        "rmsprop, torch's, + adam, ours",
        without("momentum_buffer", "backbone.4.weight"),
        "backbone.4.weight",
    ),
    "buffer of one of ours missing": (
        "adabelief, ours, + adamw, torch's",
        without("exp_avg_var", "backbone.0.weight"),
        "",
    ),
    "shape of one of ours": ("adabelief, ours, + adamw, torch's", cut_to(2, "exp_avg", "backbone.0.weight"), ""),
    "shape": ("muon + adamw", cut_to(2, "momentum_buffer", "backbone.4.weight"), "backbone.4.weight"),
    "shape that would broadcast": ("muon + adamw", cut_to(1, "momentum_buffer", "backbone.4.weight"), "backbone.4"),
    "group missing": ("muon + adamw", without_last_group, "7 parameters"),
}


@pytest.mark.parametrize(("pair", "damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_load_that_fails_changes_nothing(pair, damage, message) -> None:
    model, optimizer = trained(PAIRS[pair][0])
    other, untouched = trained(PAIRS[pair][0])
    state_dict = save_and_load(trained(PAIRS[pair][0], 5)[1].state_dict())
    damage(state_dict)
    caught = check_refused_and_unchanged(optimizer, lambda: optimizer.load_state_dict(state_dict))
    assert message in str(caught.value)
    assert equal(fit(model, [optimizer], 3), fit(other, [untouched], 3))


def test_a_checkpoint_of_other_algorithms_is_refused_without_the_factory_too() -> None:

    def made() -> Composite:
        groups = [{"params": [nn.Parameter(torch.ones(2, 2))], "algorithm": name} for name in ("muon", "lion")]
        return Composite(groups, {"muon": torch.optim.Muon, "lion": optim.Lion}, main="lion")

    state_dict = made().state_dict()
    with_another_algorithm(state_dict)
    optimizer = made()
    caught = check_refused_and_unchanged(optimizer, lambda: optimizer.load_state_dict(state_dict))
    assert "['adamw', 'adamw']" in str(caught.value) and "['muon', 'lion']" in str(caught.value)
