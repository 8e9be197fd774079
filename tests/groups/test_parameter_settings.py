"""`Plan.settings_of`: the value of each field of a parameter, and the rules that set and scale it."""

from __future__ import annotations

import pytest

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.models import Net, Tied


def settings_of(parameter, groups, model=None, **top_level):
    plan = OptimizerFactory("sgd", groups=groups, **top_level).plan(model or Net())
    return plan.settings_of(parameter)


def test_each_field_has_its_value_and_the_keys_that_set_it():
    groups = {
        "depth": {"layers": "backbone.layer.{i}", "layer_decay": 0.5},
        "slow": {"params": "backbone", "lr_scale": 0.25, "schedule": {"warmup_steps": 5}},
        "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0},
        "biases": {"kinds": "bias", "weight_decay": 0},
    }
    found = settings_of("backbone.layer.0.proj.bias", groups, lr=1.0)
    rows = {field: (value, keys) for field, value, keys in found.rows()}
    assert rows["optimizer"] == ("sgd", "name")
    assert rows["lr"] == (str(0.25 * 0.5**2), "lr × groups.depth.layer_decay ** 2 × groups.slow.lr_scale")
    assert rows["weight_decay"] == ("0.0", "groups.biases.weight_decay × groups.no_decay.weight_decay")
    assert rows["momentum"] == ("0.0", "the default of sgd")
    assert rows["schedule"] == ("{warmup_steps: 5}", "groups.slow.schedule")
    assert all(value in str(found) for value in ("backbone.layer.0.proj.bias: in the group", "warmup_steps: 5"))


def test_the_optimizer_of_a_rule_is_named_with_its_rule():
    rows = settings_of("head.weight", {"head": {"params": "head", "optimizer": "lion"}}).rows()
    assert rows[0] == ("optimizer", "lion", "groups.head.optimizer")
    assert ("lr", "0.0001", "the default of lion") in rows


def test_a_frozen_parameter_has_the_rules_that_froze_it():
    groups = {"cold": {"params": "embed", "frozen": True}, "icy": {"params": "embed.*", "frozen": True}}
    found = settings_of("embed.weight", groups)
    assert found.rows() == [("frozen", "true", "groups.cold.frozen, groups.icy.frozen")]
    assert found.frozen_by == ("groups.cold.frozen", "groups.icy.frozen")
    assert "frozen: in no group" in str(found)


def test_a_tied_parameter_is_found_under_each_of_its_names():
    groups = {"head": {"params": "head", "lr": 0.5}}
    assert settings_of("head.weight", groups, Tied()) == settings_of("embed.weight", groups, Tied())
    assert settings_of("head.weight", groups, Tied()).parameter == "embed.weight"


def test_an_unknown_parameter_is_refused_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"^'haed\.weight' matches none of 11 names\. Did you mean 'head\.weight'"):
        settings_of("haed.weight", {})


def test_the_layer_is_shown_with_its_rule():
    groups = {"depth": {"layers": "backbone.layer.{i}", "layer_decay": 0.5}}
    found = settings_of("backbone.layer.0.proj.bias", groups, lr=1.0)
    assert found.rows()[0] == ("layer", "0", "groups.depth.layers")
    assert "layer" not in [field for field, *_ in settings_of("head.weight", groups).rows()]
