"""`implementation`: whether torch's class or ours runs an algorithm, and what it computes."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optim, optimizer_info
from tests.support.cases import every
from tests.support.implementations import (
    ABSOLUTE,
    BY_FLAG,
    HEAD,
    OWN_CLASSES,
    OWN_ONLY,
    TOP,
    TORCH_AND_NATIVE,
    TORCH_CLASSES,
    case_id,
    factory_of,
    flag_names,
    for_head,
    own_only,
    variants,
)
from tests.support.messages import check_message, check_refusals
from tests.support.models import Tiny, model_for, same, train

# Which class


@pytest.mark.parametrize("implementation", ["auto", "torch"])
def test_torch_s_class_is_taken_at_the_defaults_and_where_asked(implementation):
    built = {n: OptimizerFactory(n, implementation=implementation)(model_for(n)) for n in TORCH_CLASSES}
    assert {n: type(o) for n, o in built.items()} == {n: getattr(torch.optim, cls) for n, cls in TORCH_CLASSES.items()}


def test_our_class_is_taken_where_asked_and_where_torch_has_none():
    for names, implementation in ((OWN_CLASSES, "own"), (OWN_CLASSES.keys() - TORCH_CLASSES.keys(), "auto")):
        built = {n: OptimizerFactory(n, implementation=implementation)(model_for(n)) for n in names}
        assert {n: type(o) for n, o in built.items()} == {n: getattr(optim, OWN_CLASSES[n]) for n in names}


@pytest.mark.parametrize(
    ("name", "given", "cls"),
    [
        ("adam", {}, torch.optim.Adam),
        ("adam", {"implementation": "own"}, optim.Adam),
        ("adam", ABSOLUTE, optim.Adam),
        ("adam", for_head(ABSOLUTE), optim.Adam),
        ("lion", {}, optim.Lion),
        ("adamax", {}, optim.Adamax),
    ],
    ids=["torch", "own", "own only", "own only in a rule", "no torch class", "no kernel in torch"],
)
def test_fused_takes_torch_s_kernel_where_there_is_one_and_else_ours(name, given, cls):
    optimizer = OptimizerFactory(name, fused=True, **given)(Tiny())
    assert type(optimizer) is cls
    assert all(group["fused"] for group in optimizer.param_groups)


def test_the_tables_have_every_optimizer():
    assert sorted(TORCH_CLASSES.keys() | OWN_CLASSES.keys()) == list_optimizers()


@own_only
def test_auto_takes_our_class_for_what_torch_s_cannot_do(name, given):
    assert type(OptimizerFactory(name, **given)(Tiny())) is getattr(optim, OWN_CLASSES[name])
    (default, head) = OptimizerFactory(name, **for_head(given))(Tiny()).param_groups
    values = given | ({"weight_decay_mode": "decoupled"} if "decoupled_weight_decay" in given else {})
    values.pop("decoupled_weight_decay", None)
    defaults = optimizer_info(name).defaults | {"weight_decay_mode": optimizer_info(name).decay}
    assert {key: head[key] for key in values} == values
    assert {key: default[key] for key in values} == {key: defaults[key] for key in values}


@pytest.mark.parametrize("implementation", ["auto", "torch"])
@pytest.mark.parametrize("name", every(TORCH_AND_NATIVE, fast=["adam", "adamw", "radam"]))
def test_torch_s_class_is_taken_where_our_own_hyperparameters_are_set_to_their_default(name, implementation):
    info = optimizer_info(name)
    given = {key: info.defaults[key] for key in info.own_only}
    rule = {key: value for key, value in given.items() if info.hyperparameters[key].per_group}
    optimizer = OptimizerFactory(name, implementation=implementation, **given, **for_head(rule))(Tiny())
    assert type(optimizer) is getattr(torch.optim, TORCH_CLASSES[name])


def test_fused_false_does_not_need_our_class():
    names = [name for name in TORCH_AND_NATIVE if not optimizer_info(name).fused]
    found = {name: type(OptimizerFactory(name, fused=False)(Tiny())) for name in names}
    assert found == {name: getattr(torch.optim, TORCH_CLASSES[name]) for name in names}


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_auto_takes_torch_s_class_for_what_ours_refuses(flag):
    optimizer = OptimizerFactory("adam", **{flag: True})(Tiny())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0][flag]


# What it computes

MODES = {
    "decoupled": ({"weight_decay_mode": "decoupled"}, {}, (True, True)),
    "l2": ({"weight_decay_mode": "l2"}, {}, (False, False)),
    "decoupled in a rule": ({}, {"weight_decay_mode": "decoupled"}, (False, True)),
    "l2 in a rule": ({"weight_decay_mode": "decoupled"}, {"weight_decay_mode": "l2"}, (True, False)),
    "flag": ({"decoupled_weight_decay": True}, {}, (True, True)),
    "flag in a rule": ({}, {"decoupled_weight_decay": True}, (False, True)),
    "flag unset in a rule": ({"decoupled_weight_decay": True}, {"decoupled_weight_decay": False}, (True, False)),
}


@pytest.mark.parametrize("implementation", every(["auto", "torch", "own"], fast=["auto", "own"]))
@pytest.mark.parametrize(("top_level", "head", "decoupled"), MODES.values(), ids=MODES)
@flag_names
def test_a_decay_mode_computes_what_torch_s_flag_does(name, top_level, head, decoupled, implementation):
    model, model_by_hand = model_for(name), model_for(name)
    optimizer = factory_of(name, implementation, **top_level, groups={"head": {**HEAD["head"], **head}})(model)
    assert type(optimizer) is getattr(optim if implementation == "own" else torch.optim, OWN_CLASSES[name])
    flags = [{"decoupled_weight_decay": flag} for flag in decoupled]
    by_hand = getattr(torch.optim, TORCH_CLASSES[name])(
        [
            {"params": model_by_hand.backbone.parameters(), **flags[0]},
            {"params": model_by_hand.head.parameters(), "lr": 0.025, "weight_decay": 0.3, **flags[1]},
        ],
        foreach=False,
        **TOP,
    )
    assert same(train(model, optimizer, 8), train(model_by_hand, by_hand, 8))


@flag_names
def test_the_decay_modes_differ(name):
    def weights(**given):
        model = model_for(name)
        return train(model, factory_of(name, "auto", **given)(model), 3)

    assert not same(weights(weight_decay_mode="decoupled"), weights(weight_decay_mode="l2"))


@variants
def test_both_classes_compute_the_same(name, given):
    weights = []
    for implementation in ("torch", "own"):
        model = model_for(name)
        weights.append(train(model, factory_of(name, implementation, **given)(model), 8))
    assert same(*weights)


def test_the_plan_has_the_decay_mode_in_force():
    rules = {
        "head": {"params": "head", "weight_decay_mode": "absolute"},
        "bias": {"params": "backbone.bias", "decoupled_weight_decay": True},
    }
    plan = OptimizerFactory("adam", weight_decay=0.1, groups=rules).plan(Tiny())
    modes = {group.name: group.hyperparameters["weight_decay_mode"] for group in plan.groups}
    assert modes == {"default": "l2", "head": "absolute", "bias": "decoupled"}


# Invalid configs

TORCH_REFUSES = "torch's does not. Type implementation: auto"
WRONG = [
    ("adam", {"implementation": "owm"}, ["implementation", "'owm'", "Did you mean 'own'?", "auto, torch, own"]),
    ("lion", {"implementation": "torhc"}, ["implementation", "'torhc'", "Did you mean 'torch'?", "auto, torch, own"]),
    ("adam", {"implementation": None}, ["implementation", "None", "auto, torch, own"]),
    ("adam", {"implementation": ["own"]}, ["implementation", "['own']", "auto, torch, own"]),
    *(
        ("adam", {"implementation": "own", flag: True}, [flag, "ours does not", "Remove"])
        for flag in ("capturable", "differentiable")
    ),
    *(
        ("adam", {flag: True, **absolute}, [flag, "weight_decay_mode", "Remove one of them"])
        for flag in ("capturable", "differentiable")
        for absolute in (ABSOLUTE, for_head(ABSOLUTE))
    ),
    (
        "adamax",
        {"fused": True, "implementation": "torch"},
        ["fused", "torch's adamax has no fused kernel", "Type implementation: auto"],
    ),
    *(
        (
            "adam",
            {"cautious_decay": True, **mode, **whose},
            ["adam", "cautious_decay: true", "unlike weight_decay_mode: l2", "decoupled"],
        )
        for mode in ({}, {"weight_decay_mode": "l2"})
        for whose in ({}, {"implementation": "torch"}, {"implementation": "own"})
    ),
    (
        "adamax",
        {"cautious_decay": True},
        ["adamax", "cautious_decay: true", "unlike weight_decay_mode: l2", "weight_decay_mode: decoupled"],
    ),
    (
        "adam",
        {"cautious_decay": True, "weight_decay_mode": "l1"},
        ["adam", "cautious_decay: true", "unlike weight_decay_mode: l1"],
    ),
    (
        "lamb",
        {"cautious_decay": True},
        ["lamb", "cautious_decay: true", "unlike weight_decay_mode: update", "weight_decay_mode: decoupled"],
    ),
    *(
        (
            name,
            {"decoupled_weight_decay": True, "weight_decay_mode": mode, **whose},
            [name, "decoupled_weight_decay: true", f"weight_decay_mode: {mode}", "Remove one of them"],
        )
        for name in BY_FLAG
        for mode in ("l2", "absolute")
        for whose in ({}, {"implementation": "own"})
    ),
    ("adam", {"weight_decay_mode": "update"}, ["weight_decay_mode", "'update'", "l2, l1, decoupled, absolute"]),
    ("adam", {"weight_decay_mode": "abslute"}, ["weight_decay_mode", "'abslute'", "l2, l1, decoupled, absolute"]),
]


def test_an_invalid_config_is_refused_when_the_factory_is_constructed():
    check_refusals(
        {
            f"{name} {given}": (partial(OptimizerFactory, name, **given), key, parts)
            for name, given, (key, *parts) in WRONG
        }
    )


def test_an_implementation_that_does_not_exist_is_refused():
    without_own = {name: ("own", f"no {name} of our own") for name in TORCH_CLASSES if name not in OWN_CLASSES}
    without_torch = {name: ("torch", f"torch has no {name}") for name in OWN_CLASSES if name not in TORCH_CLASSES}
    check_refusals(
        {
            name: (
                partial(OptimizerFactory, name, implementation=implementation),
                "implementation",
                [part, "Type implementation: auto"],
            )
            for name, (implementation, part) in (without_own | without_torch).items()
        }
    )


def test_torch_s_class_refuses_what_only_ours_does():
    check_refusals(
        {
            case_id((name, given)): (
                partial(OptimizerFactory, name, implementation="torch", **given),
                min(given.keys() & optimizer_info(name).own_only),
                [TORCH_REFUSES],
            )
            for name, given in OWN_ONLY
        }
    )


def test_the_rule_that_asks_for_what_torch_s_class_cannot_do_is_named():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adam", implementation="torch", **for_head(ABSOLUTE))
    check_message(caught, "groups.head.weight_decay_mode", TORCH_REFUSES)


def test_an_error_names_the_rule_where_the_algorithm_is_the_rule_s_and_only_there():
    asked = {"differentiable": True, **ABSOLUTE}  # torch's class has the flag, ours the mode
    with pytest.raises(ConfigError, match=r"^differentiable: .* Remove one of them$"):
        OptimizerFactory("adam", **asked, **for_head({"optimizer": "muon"}))
    with pytest.raises(ConfigError, match=r"^differentiable: .* \(for groups\.head\.optimizer: adam\)$"):
        OptimizerFactory("muon", **for_head({"optimizer": "adam", **asked}))
