"""Param groups that join an optimizer of a factory: named or bare, at any time, with the keys of the first groups."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, SchedulerFactory
from lightning_optim.optim import WeightDecay
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.models import Deep, weights_of
from tests.support.save_and_load import save_and_load

MUON = {"hidden": {"params": "backbone.*", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}}
LION = {"norm": {"params": "backbone.1", "optimizer": "lion"}}
CONFIGS = {
    "torch": {"name": "adamw"},
    "own": {"name": "lion"},
    "own of both": {"name": "adamw", "implementation": "own"},
    "sgd": {"name": "sgd", "momentum": 0.9},
    "adagrad": {"name": "adagrad"},
    "muon + adamw": {"name": "adamw", "groups": MUON},
    "adamw + lion": {"name": "adamw", "groups": LION, "implementation": "own"},
}
FAST = ["torch", "own", "muon + adamw"]
configs = pytest.mark.parametrize("config", every(CONFIGS, fast=FAST))


def build(config, model):
    """An optimizer over everything but the head, which joins later."""
    params = (p for name, p in model.named_parameters() if not name.startswith("head"))
    return OptimizerFactory(lr=0.01, **CONFIGS[config])(params)


def first_of(optimizer, group):
    """The first group of the same algorithm as this one."""
    return next(g for g in optimizer.param_groups if g.get("algorithm") == group.get("algorithm"))


WAYS = {
    "bare": lambda model: {"params": list(model.head.parameters())},
    "generator": lambda model: {"params": model.head.parameters()},
    "one tensor": lambda model: {"params": model.head.weight},
    "pairs": lambda model: {"params": list(model.head.named_parameters(prefix="head"))},
    "some named": lambda model: {"params": [("head.weight", model.head.weight), model.head.bias]},
    "param_names": lambda model: {"params": list(model.head.parameters()), "param_names": ["head.weight", "head.bias"]},
    "with a name": lambda model: {"params": model.head.parameters(), "name": "late", "lr": 0.5},
}


@pytest.mark.parametrize("way", WAYS)
@configs
def test_a_joined_group_has_the_keys_of_the_first_and_trains(config, way):
    model = Deep()
    optimizer = build(config, model)
    optimizer.add_param_group(WAYS[way](model))
    joined = optimizer.param_groups[-1]
    first = first_of(optimizer, joined)
    assert first is not joined and first.keys() == joined.keys()
    assert first["configured"].keys() == joined["configured"].keys()
    assert len(joined["param_names"]) == len(joined["params"])
    number = len(optimizer.param_groups) - 1
    assert joined["name"] == ("late" if way == "with a name" else f"group{number}")
    assert joined["peak_lr"] == joined["configured"]["lr"] == joined["lr"] == (0.5 if way == "with a name" else 0.01)
    before = weights_of(model)
    model.loss().backward()
    optimizer.step()
    assert not torch.equal(before[-2], model.head.weight)


def test_bare_tensors_get_the_model_s_names_where_the_factory_has_seen_the_model():
    model = Deep()
    model.head.requires_grad_(False)
    optimizer = OptimizerFactory("adamw")(p for p in model.parameters() if p.requires_grad)
    optimizer.add_param_group({"params": model.head.parameters()})
    assert optimizer.param_groups[-1]["param_names"] == ["head.weight", "head.bias"]
    frozen = OptimizerFactory("adamw", groups={"cold": {"params": "head", "frozen": True}})(model)
    frozen.add_param_group({"params": model.head.parameters()})
    assert frozen.param_groups[-1]["param_names"] == ["head.weight", "head.bias"]


def test_unknown_tensors_get_names_by_position():
    optimizer = OptimizerFactory("adamw")(Deep())
    for _ in range(2):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))]})
    assert [group["param_names"] for group in optimizer.param_groups[1:]] == [
        [f"param_groups.{number}.0", f"param_groups.{number}.1"] for number in (1, 2)
    ]
    assert [group["name"] for group in optimizer.param_groups] == ["default", "group1", "group2"]


def test_names_of_groups_are_unique():
    optimizer = OptimizerFactory("adamw")(Deep())
    for _ in range(3):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "name": "late"})
    assert [group["name"] for group in optimizer.param_groups] == ["default", "late", "late-2", "late-3"]


def test_an_optimizer_of_bare_tensors_takes_both():
    model = Deep()
    optimizer = OptimizerFactory("adamw")(list(model.backbone.parameters()))
    optimizer.add_param_group({"params": [model.head.weight]})
    optimizer.add_param_group({"params": [("head.bias", model.head.bias)]})
    model.loss().backward()
    optimizer.step()
    assert len(optimizer.param_groups) == 3


def test_what_torch_refuses_is_refused_and_leaves_the_groups_alone():
    model = Deep()
    optimizer = build("torch", model)
    before = [dict(group) for group in optimizer.param_groups]
    for wrong, error in (
        ({"params": set(model.head.parameters())}, TypeError),
        ({"params": [model.backbone[0].weight]}, ValueError),
        ({"params": ["head.weight"]}, TypeError),
        ([model.head.weight], TypeError),
    ):
        with pytest.raises(error):
            optimizer.add_param_group(wrong)
    assert equal([{**g, "params": None} for g in optimizer.param_groups], [{**g, "params": None} for g in before])


def test_configured_records_a_weight_decay_as_its_keys():
    model = Deep()
    optimizer = build("own of both", model)
    optimizer.add_param_group({"params": model.head.parameters(), "weight_decay": WeightDecay(0.5, "l2")})
    configured = optimizer.param_groups[-1]["configured"]
    assert (configured["weight_decay"], configured["weight_decay_mode"]) == (0.5, "l2")


def train(model, optimizer, scheduler, steps):
    for t in steps:
        optimizer.zero_grad()
        model.loss(t).backward()
        optimizer.step()
        scheduler.step()


@configs
def test_a_joined_group_is_saved_and_resumed_by_name_under_its_schedule(config):
    schedule = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=12)
    model, resumed_model = Deep(), Deep()
    optimizer = build(config, model)
    scheduler = schedule(optimizer)
    train(model, optimizer, scheduler, range(3))
    optimizer.add_param_group({"params": model.head.parameters(), "lr": 0.03})
    train(model, optimizer, scheduler, range(3, 6))
    resumed_model.load_state_dict(model.state_dict())
    # The next run has the parameters in one of its groups from the start.
    rules = {**CONFIGS[config].get("groups", {}), "head": {"params": "head", "lr": 0.03}}
    resumed = OptimizerFactory(lr=0.01, **CONFIGS[config] | {"groups": rules})(resumed_model)
    resumed_scheduler = schedule(resumed)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    names = {group["name"]: group["lr"] for group in optimizer.param_groups}
    state = save_and_load(scheduler.state_dict())
    resumed_scheduler.load_state_dict(state)
    assert next(g["lr"] for g in resumed.param_groups if g["name"] == "head") == list(names.values())[-1]
    train(model, optimizer, scheduler, range(6, 9))
    train(resumed_model, resumed, resumed_scheduler, range(6, 9))
    assert equal(weights_of(resumed_model), weights_of(model))


SCHEDULES = {
    "warmup_cosine": {"warmup_steps": 3, "total_steps": 20},
    "one_cycle": {"total_steps": 20},
    "cyclic": {"base_lr": 0.001, "step_size_up": 3},
    "exponential": {"gamma": 0.9},
    "step": {"step_size": 2},
    "cosine_annealing": {"T_max": 10, "warmup_steps": 5},
    "chained": {"schedulers": [{"name": "exponential", "gamma": 0.9}, {"name": "constant", "total_iters": 4}]},
    "polynomial": {"total_iters": 5},
}


@pytest.mark.parametrize("override", [None, {"name": "constant", "total_iters": 3}], ids=["one curve", "two curves"])
@pytest.mark.parametrize("name", every(SCHEDULES, fast=["warmup_cosine", "one_cycle", "cosine_annealing"]))
def test_a_joined_group_is_on_the_curve_it_would_be_on_from_the_start(name, override):
    schedule = SchedulerFactory(name, **SCHEDULES[name])
    rules = {} if override is None else {"norm": {"params": "backbone.1", "schedule": override}}

    def lrs(joins_at):
        model = Deep()
        late = {} if joins_at is not None else {"head": {"params": "head", "lr": 0.05}}
        pairs = [pair for pair in model.named_parameters() if joins_at is None or not pair[0].startswith("head")]
        optimizer = OptimizerFactory("adamw", lr=0.1, groups={**rules, **late})(pairs)
        scheduler, found = schedule(optimizer), []
        for t in range(8):
            if t == joins_at:
                optimizer.add_param_group({"params": model.head.parameters(), "lr": 0.05, "name": "head"})
            found.append({group["name"]: group["lr"] for group in optimizer.param_groups})
            train(model, optimizer, scheduler, [t])
        return found

    for found, expected in zip(lrs(joins_at=4)[4:], lrs(joins_at=None)[4:], strict=True):
        assert found == pytest.approx(expected)


def test_a_group_that_joins_under_reduce_on_plateau_starts_at_its_lr_and_is_reduced():
    model = Deep()
    optimizer = build("torch", model)
    scheduler = SchedulerFactory("reduce_on_plateau", patience=0, monitor="loss")(optimizer)
    for _ in range(3):
        scheduler.step(1.0)
    optimizer.add_param_group({"params": model.head.parameters(), "lr": 0.05})
    assert optimizer.param_groups[-1]["lr"] == 0.05
    scheduler.step(1.0)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.005)


# Copies


@configs
@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"])
def test_a_copy_trains_the_same_takes_groups_and_loads_by_name(config, how):
    model = Deep()
    optimizer = OptimizerFactory(lr=0.01, **CONFIGS[config])(model)
    model.loss().backward()
    optimizer.step()
    other_model, other = how((model, optimizer))
    assert type(other) is type(optimizer)
    for m, o in ((model, optimizer), (other_model, other)):
        o.zero_grad()
        m.loss(1).backward()
        o.step()
    assert equal(weights_of(other_model), weights_of(model))
    other.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert other.param_groups[-1].keys() == first_of(other, other.param_groups[-1]).keys()
    rules = {**CONFIGS[config].get("groups", {}), "stem": {"params": "backbone.0.bias", "lr_scale": 0.5}}
    split = OptimizerFactory(lr=0.01, **CONFIGS[config] | {"groups": rules})(Deep())
    _, again = how((model, optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.load_state_dict(split.state_dict())


def test_an_optimizer_is_freed_without_the_garbage_collector():
    optimizer = OptimizerFactory("adamw", groups=MUON)(Deep())
    reference = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert reference() is None
    finally:
        gc.enable()
