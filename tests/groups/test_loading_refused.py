"""Checkpoints that do not fit: they are refused by the parameter's name, and nothing is changed."""

from __future__ import annotations

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.loading_runs import (
    MUON,
    SAVED,
    OtherModel,
    assert_refused,
    build_factory,
    run,
    train_saved,
)
from tests.support.misfits import HEAD, MODELS, OTHER_ALGORITHMS
from tests.support.models import Deep, weights_of
from tests.support.save_and_load import save_and_load

# Another model


# The shapes of buffers: the parameter's in one class or several, and factored.
CONFIGS = ["torch adamw", "own adabelief", "torch adafactor", "muon + adamw", "muon + lion + sgd"]


@pytest.mark.parametrize("config", every(["torch adafactor", "own adamw", "muon + adamw"], fast=["muon + adamw"]))
@pytest.mark.parametrize(("given", "parts"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("is_saved", [True, False], ids=["of another model", "into another model"])
def test_a_checkpoint_of_another_model_is_refused_by_parameter_name(config, given, parts, is_saved):
    saved_model, model = (OtherModel(**given), Deep()) if is_saved else (Deep(), OtherModel(**given))
    optimizer = build_factory(config, SAVED)(saved_model)
    run(saved_model, optimizer, 0, 4)
    assert_refused(model, build_factory(config, SAVED)(model), save_and_load(optimizer.state_dict()), *parts)


def test_a_renamed_parameter_is_refused_with_both_names():
    _, optimizer = train_saved("torch adamw")
    state_dict = optimizer.state_dict()
    for group in state_dict["param_groups"]:
        group["param_names"] = [name.replace("head", "classifier") for name in group["param_names"]]
    model = Deep()
    assert_refused(model, build_factory("torch adamw", SAVED)(model), state_dict, "head.weight", "classifier.weight")


@pytest.mark.parametrize("config", every(["torch adamw", "own adamw", "muon + adamw"], fast=["muon + adamw"]))
@pytest.mark.parametrize("is_saved", [True, False], ids=["rule removed", "rule added"])
def test_other_frozen_rules_are_refused_by_parameter_name(config, is_saved):
    cold = {**SAVED, "cold": {"params": "backbone.4", "frozen": True}}
    before, after = (cold, SAVED) if is_saved else (SAVED, cold)
    _, optimizer = train_saved(config, before)
    model = Deep()
    parts = ("backbone.4.weight", "backbone.4.bias", "frozen")
    assert_refused(model, build_factory(config, after)(model), optimizer.state_dict(), *parts)


# Another algorithm


@pytest.mark.parametrize(
    "case",
    every(
        OTHER_ALGORITHMS,
        fast=[
            "adam -> sgd",
            "sgd with momentum -> adam",
            "adamw -> muon",
            "muon -> lion",
            "own adam -> lion",
            "adam -> adafactor",
            "muon -> sgd, whose buffer has the same name",
            "own adamw -> lamb, whose buffers have the same names",
            "amsgrad on",
            "own amsgrad on",
            "amsgrad on in one rule",
        ],
    ),
)
def test_the_state_of_another_algorithm_is_refused_by_parameter_name(case):
    (saved_name, saved), (name, given), part = OTHER_ALGORITHMS[case]
    saved_model, model = Deep(), Deep()
    optimizer = OptimizerFactory(saved_name, **saved)(saved_model)
    run(saved_model, optimizer, 0, 4)
    assert_refused(model, OptimizerFactory(name, **given)(model), save_and_load(optimizer.state_dict()), part)


def test_only_the_parameters_that_another_algorithm_has_stepped_are_named():
    saved_model, model = Deep(), Deep()
    optimizer = OptimizerFactory("adamw", groups=MUON)(saved_model)
    run(saved_model, optimizer, 0, 4)
    muon = {name for group in optimizer.param_groups if group["algorithm"] == "muon" for name in group["param_names"]}
    with pytest.raises(ConfigError, match="was saved by muon") as raised:
        OptimizerFactory("adamw", implementation="own")(model).load_state_dict(save_and_load(optimizer.state_dict()))
    named, _, _ = str(raised.value).partition(" was saved by")
    others = {name for name, _ in model.named_parameters()} - muon
    assert any(name in named for name in muon) and not any(name in named for name in others)


COMPATIBLE = {
    "torch adamw -> own": (("adamw", {}), ("adamw", {"implementation": "own"})),
    "own adamw -> torch": (("adamw", {"implementation": "own"}), ("adamw", {})),
    "torch -> own in a composite": (
        ("adamw", {"groups": MUON}),
        (
            "adamw",
            {
                "groups": {
                    **MUON,
                    "h": {**HEAD, "cautious_decay": False, "weight_decay_mode": "decoupled"},
                }
            },
        ),
    ),
    "amsgrad off": (("adam", {"amsgrad": True}), ("adam", {})),
    "sgd's momentum on": (("sgd", {}), ("sgd", {"momentum": 0.9})),
    "sgd's momentum off": (("sgd", {"momentum": 0.9}), ("sgd", {})),
    "adam -> adamw": (("adam", {}), ("adamw", {})),
    "nadam -> nadamw": (("nadam", {}), ("nadamw", {})),
    "adaboundw -> adabound": (("adaboundw", {}), ("adabound", {})),
    "adam with amsgrad -> amsgrad": (("adam", {"amsgrad": True, "implementation": "own"}), ("amsgrad", {})),
}


@pytest.mark.parametrize("case", COMPATIBLE)
def test_an_algorithm_with_the_same_state_continues(case):
    (saved_name, saved), (name, given) = COMPATIBLE[case]
    model, resumed_model = Deep(), Deep()
    optimizer = OptimizerFactory(saved_name, **saved)(model)
    run(model, optimizer, 0, 4)
    resumed_model.load_state_dict(model.state_dict())
    resumed = OptimizerFactory(name, **given)(resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    for p, q in zip(model.parameters(), resumed_model.parameters(), strict=True):
        before, after = optimizer.state[p], resumed.state[q]
        for key in before.keys() & after.keys():
            # Nadam's product of momenta is a tensor in one class and a float in the other.
            if before[key].ndim == 0:
                assert float(after[key]) == float(before[key])
            else:
                assert torch.equal(after[key], before[key])
    before = weights_of(resumed_model)
    after = run(resumed_model, resumed, 4, 6)[-1]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(float(state.get("step", 6)) == 6 for state in resumed.state.values())


# LBFGS: its state is one vector over all parameters


def step_lbfgs(model, optimizer, num_steps):
    def closure():
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    for _ in range(num_steps):
        optimizer.step(closure)
    return weights_of(model)


def test_lbfgs_continues_with_the_same_parameters_only():
    factory = OptimizerFactory("lbfgs", lr=0.1, max_iter=3)
    model, resumed_model = Deep(), Deep()
    optimizer = factory(model)
    step_lbfgs(model, optimizer, 2)
    state_dict = save_and_load(optimizer.state_dict())
    resumed_model.load_state_dict(model.state_dict())
    renamed = {"renamed": {"params": "*", "lr_scale": 1.0}}
    resumed = OptimizerFactory("lbfgs", lr=0.1, max_iter=3, groups=renamed)(resumed_model)
    resumed.load_state_dict(state_dict)
    assert equal(step_lbfgs(resumed_model, resumed, 3), step_lbfgs(model, optimizer, 3))
    with pytest.raises(ConfigError, match=r"neck\.bias, neck\.weight"):
        factory(OtherModel(more=True)).load_state_dict(state_dict)
    for rules in (SAVED, {"all_of_it": {"params": "*", "lr_scale": 1.0}}):
        with pytest.raises(ConfigError):
            build_factory("torch adamw", rules)(Deep()).load_state_dict(state_dict)


def test_lbfgs_refuses_its_parameters_in_another_order():
    model, factory = Deep(), OptimizerFactory("lbfgs")
    state_dict = factory(model).state_dict()
    with pytest.raises(ConfigError, match="differ in 10 parameters"):
        factory(list(model.named_parameters())[::-1]).load_state_dict(state_dict)
