"""The optimizer that a factory builds: the class, groups, names and flags that the config asks for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, list_optimizers, optimizer_info
from tests.support.cases import every
from tests.support.models import Tiny, model_for, names_of, same, train
from tests.support.save_and_load import save_and_load

TORCH = [name for name in list_optimizers() if not optimizer_info(name).is_native_only]
OWN = [name for name in list_optimizers() if optimizer_info(name).own]
CLASSES = [*((name, "torch") for name in TORCH), *((name, "own") for name in OWN)]
FUSED = [name for name in TORCH if optimizer_info(name).fused]
HEAD = {"head": {"params": "head", "lr_scale": 0.5}}


def groups_for(name):
    return None if optimizer_info(name).single_group else HEAD


def build_by_hand(name, model, lr, **given):
    cls = optimizer_info(name).load()
    if name == "lbfgs":
        return cls(model.parameters(), lr=lr, **given)
    head = {"params": model.head.parameters(), "lr": lr * 0.5}
    return cls([{"params": model.backbone.parameters()}, head], lr=lr, **given)


# torch's classes


def execution_settings(name):
    """Execution flags in the config, and the same for torch's class."""
    flags = {"foreach", "fused"} & set(optimizer_info(name).signature(own=False))
    automatic = {"fused": True} if "fused" in flags else {}
    return [({}, automatic)] + [({flag: on}, {flag: on}) for flag in sorted(flags) for on in (False, True)]


SETTINGS = [(name, *setting) for name in TORCH for setting in execution_settings(name)]


def setting_id(setting):
    name, given, _ = setting
    return " ".join([name, *(f"{flag}={on}" for flag, on in given.items())])


@pytest.mark.parametrize(
    ("name", "given", "flags"),
    every(
        SETTINGS,
        fast=[
            *(setting_id(setting) for setting in SETTINGS if setting[0] == "adamw"),
            *("sgd", "lbfgs", "sparse_adam", "muon", "adafactor", "rprop foreach=True"),
        ],
        id=setting_id,
    ),
)
def test_training_is_that_of_torch_s_class_built_by_hand(name, given, flags):
    model, model_by_hand = model_for(name), model_for(name)
    optimizer = OptimizerFactory(name, lr=0.05, groups=groups_for(name), **given)(model)
    assert type(optimizer) is optimizer_info(name).load()
    by_hand = build_by_hand(name, model_by_hand, 0.05, **flags)
    assert same(train(model, optimizer, 5), train(model_by_hand, by_hand, 5))


@pytest.mark.parametrize("name", every(TORCH, fast=["adamw", "sgd", "lbfgs", "muon"]))
def test_a_group_of_torch_s_class_has_the_keys_of_one_built_by_hand(name):
    model = model_for(name)
    group = OptimizerFactory(name)(model.named_parameters()).param_groups[0]
    by_hand = optimizer_info(name).load()(model.named_parameters()).param_groups[0]
    assert set(group) - set(by_hand) == {"name", "peak_lr", "configured"}
    assert {key for key in by_hand if key not in ("params", "fused") and group[key] != by_hand[key]} == set()


@pytest.mark.parametrize("name", every(OWN, fast=["adam", "lion", "prodigy"]))
def test_a_group_of_a_native_class_has_the_keys_of_one_built_by_hand(name):
    model = model_for(name)
    group = OptimizerFactory(name, implementation="own")(model.named_parameters()).param_groups[0]
    by_hand = optimizer_info(name).load(own=True)(model.named_parameters()).param_groups[0]
    assert {**by_hand, "name": "default", "configured": group["configured"]} == group


@pytest.mark.parametrize(
    ("name", "implementation"),
    every(
        CLASSES,
        fast=["adamw torch", "lbfgs torch", "sparse_adam torch", "muon torch", "lion own", "adam own"],
        id=" ".join,
    ),
)
def test_param_groups_have_the_names_parameters_and_lrs_of_the_plan(name, implementation):
    model = model_for(name)
    factory = OptimizerFactory(name, lr=0.05, groups=groups_for(name), implementation=implementation)
    groups = factory(model).param_groups
    names = names_of(model)
    if name == "lbfgs":
        expected = [("default", names, 0.05)]
    else:
        expected = [
            ("default", [n for n in names if "backbone" in n], 0.05),
            ("head", [n for n in names if "head" in n], 0.025),
        ]
    assert [(g["name"], g["param_names"], g["lr"]) for g in groups] == expected
    assert all(group["peak_lr"] == group["lr"] for group in groups)
    parameters = dict(model.named_parameters())
    assert all(parameters[n] is p for g in groups for n, p in zip(g["param_names"], g["params"], strict=True))


@pytest.mark.parametrize("implementation", ["torch", "own"])
def test_a_group_has_the_hyperparameters_of_its_rule(implementation):
    rule = {"params": "head", "weight_decay": 0.0, "betas": (0.8, 0.9), "eps": 1e-6}
    factory = OptimizerFactory("adamw", weight_decay=0.1, groups={"head": rule}, implementation=implementation)
    default, head = (
        {key: group[key] for key in ("weight_decay", "betas", "eps")} for group in factory(Tiny()).param_groups
    )
    assert default == {"weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    assert head == {"weight_decay": 0.0, "betas": (0.8, 0.9), "eps": 1e-6}


# Fused kernels

FLAGS = {
    "automatic": ({}, True),
    "fused": ({"fused": True}, True),
    "not fused": ({"fused": False}, False),
    "foreach": ({"foreach": True}, None),
    "loop": ({"foreach": False}, None),
    "differentiable": ({"differentiable": True}, None),
}


@pytest.mark.parametrize(("given", "fused"), FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("name", every(FUSED, fast=["adamw"]))
def test_the_fused_kernel_is_used_where_the_class_has_one_and_no_flag_excludes_it(name, given, fused):
    optimizer = OptimizerFactory(name, groups=HEAD, **given)(Tiny())
    assert [group["fused"] for group in optimizer.param_groups] == [fused, fused]
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_complex_parameters_are_not_fused():
    optimizer = OptimizerFactory("adamw")([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2) * 1j)])
    assert not optimizer.param_groups[0]["fused"]


def test_a_frozen_complex_parameter_does_not_prevent_fusing():
    model = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2)), "phase": nn.Parameter(torch.zeros(2) * 1j)})
    optimizer = OptimizerFactory("adam", groups={"cold": {"params": "phase", "frozen": True}})(model)
    assert optimizer.param_groups[0]["fused"]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_sparse_gradients_are_accepted_where_torch_s_class_accepts_them(name):
    model, model_by_hand = model_for("sparse_adam"), model_for("sparse_adam")
    optimizer = OptimizerFactory(name, lr=0.05, groups=HEAD)(model)
    by_hand = build_by_hand(name, model_by_hand, 0.05)
    assert same(train(model, optimizer, 3), train(model_by_hand, by_hand, 3))


# Saving and loading


@pytest.mark.parametrize(
    ("name", "implementation"),
    every(CLASSES, fast=["adamw torch", "lbfgs torch", "lion own", "prodigy own", "extra_adam own"], id=" ".join),
)
def test_training_continues_bitwise_from_a_state_dict(name, implementation):
    factory = OptimizerFactory(name, lr=0.05, groups=groups_for(name), implementation=implementation)
    model, resumed_model = model_for(name), model_for(name)
    optimizer = factory(model)
    train(model, optimizer, 3)
    resumed_model.load_state_dict(model.state_dict())
    resumed = factory(resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert same(train(model, optimizer, 3), train(resumed_model, resumed, 3))


def test_foreach_and_fused_are_those_of_the_new_run():
    def flags(groups):
        return [(group["foreach"], group["fused"]) for group in groups]

    model = model_for("adamw")
    optimizer = OptimizerFactory("adamw", groups=HEAD)(model)
    train(model, optimizer, 3)
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict["param_groups"])
    resumed = OptimizerFactory("adamw", groups=HEAD, foreach=True)(Tiny())
    resumed.load_state_dict(state_dict)
    assert flags(resumed.param_groups) == [(True, None)] * 2
    assert flags(before) == [(None, True)] * 2
    assert state_dict["param_groups"] == before
    again = OptimizerFactory("adamw", groups=HEAD)(Tiny())
    again.load_state_dict(resumed.state_dict())
    assert flags(again.param_groups) == [(None, True)] * 2


def test_a_checkpoint_of_torch_s_class_can_be_loaded_and_the_other_way_round():
    factory = OptimizerFactory("adamw", lr=0.05, groups=HEAD, fused=False, foreach=False)
    model, model_by_hand = model_for("adamw"), model_for("adamw")
    optimizer = factory(model)
    by_hand = build_by_hand("adamw", model_by_hand, 0.05, fused=False, foreach=False)
    train(model, optimizer, 2), train(model_by_hand, by_hand, 2)
    state_dict, state_dict_by_hand = copy.deepcopy((optimizer.state_dict(), by_hand.state_dict()))
    optimizer.load_state_dict(state_dict_by_hand)
    by_hand.load_state_dict(state_dict)
    assert [(g["name"], g["peak_lr"]) for g in optimizer.param_groups] == [("default", 0.05), ("head", 0.025)]
    assert [g["param_names"] for g in optimizer.param_groups] == [names_of(model)[:2], names_of(model)[2:]]
    assert same(train(model, optimizer, 3), train(model_by_hand, by_hand, 3))


# Muon and frozen parameters


def test_muon_accepts_a_model_whose_other_parameters_are_frozen():
    optimizer = OptimizerFactory("muon", groups={"cold": {"kinds": "bias", "frozen": True}})(Tiny())
    assert optimizer.param_groups[0]["param_names"] == ["backbone.weight", "head.weight"]


def test_a_refused_build_freezes_nothing():
    model = Tiny()
    with pytest.raises(ValueError, match="takes matrices"):
        OptimizerFactory("muon", groups={"cold": {"params": "head", "frozen": True}})(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
