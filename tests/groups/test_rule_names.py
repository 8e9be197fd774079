"""`name:` of a rule: what its groups are named, and which names are refused."""

from __future__ import annotations

import pytest

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.layered_models import ENCODER, depth_rule, tree
from tests.support.messages import check_message
from tests.support.models import Net


def test_groups_have_the_short_names_and_everything_else_the_keys():
    groups = {**depth_rule(name="d"), "no_decay": {"kinds": ["bias"], "weight_decay": 0, "name": "nd"}}
    plan = OptimizerFactory("adamw", lr=1.0, groups=groups).plan(tree(*ENCODER))
    assert [group.name for group in plan.groups] == ["d.stem", "d.0", "d.0.nd", "d.1", "d.1.nd", "default"]
    group = plan.groups[2]
    assert group.made_by == ("depth", "no_decay")
    assert group.sources["weight_decay"] == ("groups.no_decay.weight_decay",)
    assert group.sources["lr"] == ("lr", "groups.depth.layer_decay ** 2")


def test_the_order_of_the_rules_in_a_name_is_that_of_their_keys():
    groups = {"a": {"params": "head", "lr": 0.5, "name": "z"}, "b": {"kinds": "bias", "weight_decay": 0}}
    plan = OptimizerFactory("adamw", groups=groups).plan(Net())
    assert "z.b" in [group.name for group in plan.groups]


@pytest.mark.parametrize("name", [None, "x"])
def test_null_and_the_key_itself_are_the_default(name):
    plan = OptimizerFactory("adamw", groups={"x": {"params": "head", "lr": 0.5, "name": name}}).plan(Net())
    assert [group.name for group in plan.groups] == ["default", "x"]


def test_the_only_effect_of_a_rule_cannot_be_a_name():
    with pytest.raises(ConfigError, match=r"^groups\.x: it selects parameters but sets nothing"):
        OptimizerFactory("adamw", groups={"x": {"params": "head", "name": "h"}})


HEAD = {"params": "head", "lr": 0.5}
WRONG = {
    "letters": ({"x": {**HEAD, "name": "1.5"}}, ["groups.x.name", "'1.5'", "letters, digits, _ and -"]),
    "reserved": ({"x": {**HEAD, "name": "all"}}, ["groups.x.name", "'all'", "for example all_params"]),
    "no string": ({"x": {**HEAD, "name": True}}, ["groups.x.name", "got True", "not a string"]),
    "an optimizer": (
        {"x": {**HEAD, "name": "muon"}},
        ["groups.x.name", "type groups.x.optimizer: muon", "muon_params"],
    ),
    "the key of another rule": (
        {"x": {**HEAD, "name": "y"}, "y": HEAD},
        ["groups.x.name", "'y' is the name of groups.y too", "the default is x"],
    ),
    "the key of another rule with a name": (
        {"x": {**HEAD, "name": "z"}, "y": {**HEAD, "name": "x"}},
        ["groups.y.name", "'x' is the name of groups.x too", "the default is y"],
    ),
    "the name of another rule": (
        {"x": {**HEAD, "name": "h"}, "y": {**HEAD, "name": "h"}},
        ["groups.y.name", "'h' is the name of groups.x too", "the default is y"],
    ),
}


@pytest.mark.parametrize(("groups", "parts"), WRONG.values(), ids=WRONG)
def test_a_wrong_name_is_refused_when_the_factory_is_constructed(groups, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", groups=groups)
    check_message(caught, *parts)


def test_a_rule_with_an_optimizer_may_have_its_name():
    groups = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "name": "muon"}}
    plan = OptimizerFactory("adamw", groups=groups).plan(Net())
    assert [group.name for group in plan.groups] == ["default", "muon"]


def test_the_name_of_a_removed_rule_is_free():
    plan = OptimizerFactory("adamw", groups={"x": {**HEAD, "name": "y"}, "y": None}).plan(Net())
    assert [group.name for group in plan.groups] == ["default", "y"]
