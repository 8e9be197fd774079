"""Rules: how they compose field by field, and which are refused."""

from __future__ import annotations

from itertools import permutations

import pytest

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.messages import check_message
from tests.support.models import Net, names_of

TOP = {"lr": 1.0, "weight_decay": 0.5, "momentum": 0.0}
BACKBONE = {"params": "backbone"}
BIASES = {"kinds": "bias"}
FIRST_BIAS = "backbone.layer.0.proj.bias"


def explain(groups, **top):
    return OptimizerFactory("sgd", **{**TOP, **top}, groups=groups).explain(Net())


def values(groups, field, **top):
    """A field for a parameter that neither rule matches, one, the other, or both."""
    plan = explain(groups, **top)
    by_name = {name: group.hyperparameters[field] for group in plan.groups for name in group.params}
    return [by_name[name] for name in ("head.weight", "backbone.layer.0.proj.weight", "head.bias", FIRST_BIAS)]


def test_rules_compose_field_by_field():
    groups = {"backbone": {**BACKBONE, "lr": 0.25, "momentum": 0.9}, "biases": {**BIASES, "weight_decay": 0}}
    assert values(groups, "lr") == [1.0, 0.25, 1.0, 0.25]
    assert values(groups, "weight_decay") == [0.5, 0.5, 0.0, 0.0]
    assert values(groups, "momentum") == [0.0, 0.9, 0.0, 0.9]
    assert values(groups, "dampening") == [0.0] * 4


@pytest.mark.parametrize(
    ("backbone", "biases", "field", "expected"),
    [
        pytest.param({"lr_scale": 0.5}, {"lr_scale": 0.25}, "lr", [1.0, 0.5, 0.25, 0.125], id="lr_scale"),
        pytest.param({"lr_scale": 0.5}, {"lr": 8}, "lr", [1.0, 0.5, 8.0, 4.0], id="scale_times_the_rule_s_lr"),
        pytest.param({"lr": 8, "lr_scale": 0.5}, {"momentum": 0.9}, "lr", [1.0, 4.0, 1.0, 4.0], id="in_one_rule"),
        pytest.param({"lr_scale": 0}, {"lr_scale": 0.5}, "lr", [1.0, 0.0, 0.5, 0.0], id="zero"),
        pytest.param(
            {"lr_scale": 0.5, "priority": 3},
            {"lr_scale": 0.25},
            "lr",
            [1.0, 0.5, 0.25, 0.125],
            id="whatever_the_priority",
        ),
        pytest.param(
            {"weight_decay_scale": 0.5},
            {"weight_decay_scale": 4},
            "weight_decay",
            [0.5, 0.25, 2.0, 1.0],
            id="weight_decay_scale",
        ),
    ],
)
def test_scales_of_all_rules_multiply(backbone, biases, field, expected):
    assert values({"backbone": {**BACKBONE, **backbone}, "biases": {**BIASES, **biases}}, field) == expected


def test_the_order_of_the_rules_has_no_effect():
    rules = {
        "backbone": {**BACKBONE, "lr_scale": 0.1},
        "biases": {**BIASES, "lr_scale": 0.3, "weight_decay": 0},
        "norms": {"kinds": "norm", "lr_scale": 0.7, "momentum": 0.9, "priority": 1},
        "first": {"params": "backbone.layer.0", "momentum": 0.5},
    }
    tables = {explain(dict(order)).json() for order in permutations(rules.items())}
    assert len(tables) == 1


@pytest.mark.parametrize("swap", [False, True], ids=["ab", "ba"])
def test_a_conflict_is_refused_with_both_rules_the_parameters_and_a_priority(swap):
    rules = [("backbone", {**BACKBONE, "lr": 0.1}), ("biases", {**BIASES, "lr": 0.2})]
    with pytest.raises(ConfigError) as caught:
        explain(dict(reversed(rules) if swap else rules))
    parts = ["0.1", "groups.biases.lr: 0.2", "4 parameters", "groups.biases.priority: 1 (the default is 0"]
    names = [f"backbone.layer.{name}" for name in ("0.proj.bias", "0.norm.bias", "1.proj.bias")]
    check_message(caught, "groups.backbone.lr", *parts, f"{', '.join(names)} and 1 more")


def test_the_suggested_priority_resolves_a_conflict():
    rules = {"backbone": {**BACKBONE, "lr": 0.1, "priority": 4}, "biases": {**BIASES, "lr": 0.2, "priority": 4}}
    with pytest.raises(ConfigError, match=r"groups\.biases\.priority: 5 \("):
        explain(rules)
    rules["biases"]["priority"] = 5
    assert values(rules, "lr") == [1.0, 0.1, 0.2, 0.2]


def test_a_higher_priority_wins_over_conflicting_rules_of_a_lower_one():
    rules = {
        "a": {**BACKBONE, "lr": 0.1},
        "b": {**BIASES, "lr": 0.2},
        "top": {"params": FIRST_BIAS, "lr": 0.3, "priority": 1},
        "rest": {"params": ["backbone.layer.0.norm.bias", "backbone.layer.1"], "lr": 0.4, "priority": 2},
    }
    assert values(rules, "lr") == [1.0, 0.1, 0.2, 0.3]


def test_a_negative_priority_loses_to_the_default():
    rules = {"a": {**BACKBONE, "lr": 0.1}, "b": {**BIASES, "lr": 0.2, "priority": -1}}
    assert values(rules, "lr") == [1.0, 0.1, 0.2, 0.1]


def test_equal_values_are_no_conflict():
    rules = {"a": {**BACKBONE, "weight_decay": 0}, "b": {**BIASES, "weight_decay": 0.0}}
    assert values(rules, "weight_decay") == [0.5, 0.0, 0.0, 0.0]


def test_frozen_rules_conflict_as_others_do():
    rules = {"a": {**BACKBONE, "frozen": True}, "b": {**BIASES, "frozen": False}}
    with pytest.raises(ConfigError, match=r"^groups\.a\.frozen: true, but groups\.b\.frozen: false"):
        explain(rules)
    rules["b"]["priority"] = 1
    frozen = explain(rules).frozen
    assert set(frozen) == {n for n in names_of(Net()) if n.startswith("backbone") and not n.endswith("bias")}


@pytest.mark.parametrize("groups", [None, {}, {"backbone": None}], ids=["null", "empty", "rule_removed"])
def test_null_removes_rules(groups):
    assert [group.name for group in explain(groups).groups] == ["default"]


def test_null_removes_one_rule_of_several():
    groups = {"backbone": {**BACKBONE, "lr": 0.1}, "biases": None}
    assert [group.name for group in explain(groups).groups] == ["default", "backbone"]


@pytest.mark.parametrize("name", ["no_decay", "_x", "Layer-3", "a1"])
def test_valid_names_are_accepted(name):
    assert explain({name: {"params": "*", "lr": 0.1}}).groups[0].name == name


@pytest.mark.parametrize("name", ["a.b", "1st", "", "a/b", "-a", "a b", "größe", 7], ids=repr)
def test_invalid_names_are_refused(name):
    with pytest.raises(ConfigError) as caught:
        explain({name: {"params": "*", "lr": 0.1}})
    check_message(caught, f"groups.{name}", repr(str(name)), "letters, digits, _ and -")


@pytest.mark.parametrize("name", ["all", "default"])
def test_reserved_names_are_refused_with_another(name):
    with pytest.raises(ConfigError) as caught:
        explain({name: {"params": "*", "lr": 0.1}})
    check_message(caught, f"groups.{name}", f"'{name}'", f"{name}_params")


WRONG = [
    ({"lr": 0.1}, ["groups.x", "params, classes, kinds", "params: backbone"]),
    ({"param": "head", "lr": 0.1}, ["groups.x", "params, classes, kinds"]),
    (
        {"params": "head"},
        ["groups.x", "lr, momentum", "lr_scale, weight_decay_scale, layer_decay, frozen, optimizer, schedule"],
    ),
    (
        {"params": "head", "frozen": None},
        ["groups.x", "lr_scale, weight_decay_scale, layer_decay, frozen, optimizer, schedule"],
    ),
    (
        {"params": "head", "priority": 3},
        ["groups.x", "lr_scale, weight_decay_scale, layer_decay, frozen, optimizer, schedule"],
    ),
    (3, ["groups.x", "3", "x: {params: backbone, lr_scale: 0.1}"]),
    ("backbone", ["groups.x", "'backbone'", "x: {params: backbone, lr_scale: 0.1}"]),
    (["backbone"], ["groups.x", "['backbone']", "x: {params: backbone, lr_scale: 0.1}"]),
    (
        {"params": "head", "wieght_decay": 0},
        [
            "groups.x.wieght_decay",
            "sgd",
            "Did you mean 'weight_decay'?",
            "params, classes, kinds, layers, lr, momentum",
        ],
    ),
    (
        {"params": "head", "betas": [0.9, 0.99]},
        ["groups.x.betas", "sgd", "belongs to adabelief, adabound, ", "left over from a config below?"],
    ),
    ({"params": "head", "lr_scale": -1}, ["groups.x.lr_scale", "-1", "number >= 0", "lr_scale: 0.1"]),
    ({"params": "head", "weight_decay_scale": -1}, ["groups.x.weight_decay_scale", "-1", "number >= 0"]),
    ({"params": "head", "lr_scale": "0.1x"}, ["groups.x.lr_scale", "'0.1x'", "number >= 0", "lr_scale: 0.1"]),
    ({"params": "head", "frozen": 1}, ["groups.x.frozen", "1", "true or false", "frozen: true"]),
    ({"params": "head", "lr": 1, "priority": "high"}, ["groups.x.priority", "'high'", "integer", "priority: 1"]),
    ({"params": "head", "lr": 1, "priority": True}, ["groups.x.priority", "True", "integer", "priority: 1"]),
    ({"params": "head", "lr": 1, "priority": 1.5}, ["groups.x.priority", "1.5", "integer", "priority: 1"]),
    ({"params": "head", "lr": 1, "allow_empty": "yes"}, ["groups.x.allow_empty", "'yes'", "true or false"]),
]


@pytest.mark.parametrize(
    ("rule", "parts"), WRONG, ids=[" ".join(rule) if isinstance(rule, dict) else repr(rule) for rule, _ in WRONG]
)
def test_an_invalid_rule_is_refused_when_the_factory_is_constructed(rule, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"x": rule})
    check_message(caught, *parts)


@pytest.mark.parametrize("groups", ["no_decay", 3, True, [], [{"params": "head"}]], ids=repr)
def test_groups_that_are_no_mapping_are_refused_with_an_example(groups):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups=groups)
    check_message(caught, "groups", repr(groups), "groups: {no_decay: {kinds: [bias, norm], weight_decay: 0}}")


def test_a_scale_of_a_missing_hyperparameter_is_refused():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("rprop", groups={"x": {"params": "head", "weight_decay_scale": 0.1}})
    check_message(caught, "groups.x.weight_decay_scale", "rprop has no weight_decay")


NESTEROV = ["nesterov: true", "momentum > 0", "dampening: 0"]


def test_incompatible_values_at_the_top_level_are_refused():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", nesterov=True)
    check_message(caught, "sgd", *NESTEROV)


@pytest.mark.parametrize(
    ("top", "rule"),
    [
        pytest.param({}, {"nesterov": True}, id="rule_sets_nesterov"),
        pytest.param({"nesterov": True, "momentum": 0.9}, {"momentum": 0}, id="rule_takes_the_momentum"),
        pytest.param({"nesterov": True, "momentum": 0.9}, {"dampening": 0.5}, id="rule_sets_dampening"),
    ],
)
@pytest.mark.parametrize("other", ["a_rule", "z_rule"])
def test_incompatible_values_are_refused_at_the_rule_that_causes_them(top, rule, other):
    groups = {"head": {"params": "head", **rule}, other: {"params": "*", "lr_scale": 0.5}}
    with pytest.raises(ConfigError) as caught:
        explain(groups, **top)
    check_message(caught, "groups.head", *NESTEROV, "2 parameters", "head.weight, head.bias")


def test_another_rule_can_make_values_compatible():
    groups = {"head": {"params": "head", "nesterov": True}, "all_params": {"params": "*", "momentum": 0.9}}
    assert values(groups, "nesterov") == [True, False, True, False]


def test_a_rule_with_the_top_level_algorithm_has_its_defaults_and_the_optimizer_wide_values():
    groups = {"head": {"params": "head", "optimizer": "sgd"}}
    assert values(groups, "lr") == [1e-3, 1.0, 1e-3, 1.0]
    assert values(groups, "weight_decay") == [0.0, 0.5, 0.0, 0.5]
    assert values(groups, "foreach", foreach=True) == [True] * 4
