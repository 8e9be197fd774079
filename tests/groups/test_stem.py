"""The stem of `layer_decay`: what comes before the layers, or what `stem` names; and invalid layers and decays."""

from __future__ import annotations

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.layered_models import DECAY, ENCODER, depth_rule, lr_by_parameter, params_by_group, plan, tree
from tests.support.messages import check_message

STEM = ["patch.weight", "enc.embed.weight"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        pytest.param({}, ["enc.embed.weight"], id="default"),
        pytest.param({"stem": None}, ["enc.embed.weight"], id="null"),
        pytest.param({"stem": "patch"}, ["patch.weight"], id="text"),
        pytest.param({"stem": ["patch", "enc.embed"]}, STEM, id="list"),
        pytest.param({"stem": []}, [], id="none"),
        pytest.param({"stem": "re:.*(patch|pooler).*"}, ["patch.weight", "enc.pooler.weight"], id="regex"),
        pytest.param({"stem": "enc"}, ["enc.embed.weight", "enc.pooler.weight"], id="layers_stay_layers"),
    ],
)
def test_the_stem_is_what_comes_before_the_layers_or_what_stem_names(stem, expected):
    found = lr_by_parameter(tree("patch.weight", *ENCODER), depth_rule(**stem))
    layers = {name: DECAY ** (2 - int(name.split(".")[2])) for name in found if ".layer." in name}
    others = {name: DECAY**3 if name in expected else 1.0 for name in found if ".layer." not in name}
    assert found == {**others, **layers}


def test_the_default_stem_shares_the_first_segment_of_a_layer_s_path():
    names = ["a.stem.w", "b.stem.w", "c.stem.w", "a.l.0.w", "a.mid.w", "b.l.1.w", "a.l.2.w", "b.end.w"]
    found = lr_by_parameter(tree(*names), depth_rule("*.l.{i}"))
    stem = DECAY**4
    # In the order of the model's parameters, which is the modules'.
    assert found == {
        "a.stem.w": stem,
        "a.l.0.w": DECAY**3,
        "a.l.2.w": DECAY,
        "a.mid.w": 1.0,
        "b.stem.w": stem,
        "b.l.1.w": DECAY**2,
        "b.end.w": 1.0,
        "c.stem.w": 1.0,
    }


def test_the_other_selectors_apply_to_the_stem_too():
    model = nn.ModuleDict({"embed": nn.Linear(2, 2), "l": nn.ModuleList([nn.Linear(2, 2)]), "head": nn.Linear(2, 2)})
    wrapped = nn.ModuleDict({"enc": model})
    found = lr_by_parameter(wrapped, depth_rule("enc.l.{i}", kinds="bias"))
    assert {name: lr for name, lr in found.items() if lr != 1.0} == {"enc.embed.bias": 0.25, "enc.l.0.bias": 0.5}


def test_a_stem_that_matches_nothing_is_refused_with_the_nearest_names():
    with pytest.raises(ConfigError) as caught:
        plan(tree(*ENCODER), depth_rule(stem="enc.embd"))
    check_message(caught, "groups.depth.stem", "'enc.embd'", "7 names", "'enc.embed'")


def test_a_stem_that_the_other_selectors_do_not_match_is_refused():
    with pytest.raises(ConfigError) as caught:
        plan(tree("patch.weight", *ENCODER), depth_rule(params="enc", stem="patch"))
    check_message(caught, "groups.depth.stem", "'patch'", "other selectors")


@pytest.mark.parametrize("stem", ["enc.layer", "enc.layer.0", ["enc.layer.*"]], ids=str)
def test_a_stem_inside_the_layers_is_refused(stem):
    with pytest.raises(ConfigError) as caught:
        plan(tree(*ENCODER), depth_rule(stem=stem))
    check_message(caught, "groups.depth.stem", "is in layers", "remove stem")


def test_a_stem_may_match_nothing_with_allow_empty():
    assert "depth.stem" not in params_by_group(tree(*ENCODER), depth_rule(stem="enc.embd", allow_empty=True))


# Tied parameters


def test_a_tensor_tied_across_stem_and_head_is_in_the_stem():
    model = tree(*ENCODER)
    model.head.weight = model.enc.embed.weight
    assert params_by_group(model, depth_rule())["depth.stem"] == ["enc.embed.weight"]
    assert lr_by_parameter(model, depth_rule(stem="head"))["enc.embed.weight"] == DECAY**3


@pytest.mark.parametrize(
    ("names", "tied", "stem"),
    [
        pytest.param(["a.w", "b.embed.w", "b.l.0.w"], ("a", "b.l.0"), ["b.embed.w"], id="a_layer_tied_to_the_front"),
        pytest.param(["a.w", "b.l.0.w", "b.out.w"], ("a", "b.out"), [], id="an_output_tied_to_the_front"),
        pytest.param(["a.w", "b.embed.w", "b.l.0.w"], ("a", "b.embed"), ["a.w"], id="an_input_tied_to_the_front"),
        pytest.param(["b.in.w", "b.l.0.w", "b.out.w"], ("b.in", "b.out"), ["b.in.w"], id="an_output_tied_to_the_input"),
    ],
)
def test_the_default_stem_follows_the_model_s_order_whatever_is_tied(names, tied, stem):
    model = tree(*names)
    first, second = map(model.get_submodule, tied)
    second.w = first.w
    assert params_by_group(model, depth_rule("b.l.{i}")).get("depth.stem", []) == stem


# Invalid layers, stem and layer_decay


@pytest.mark.parametrize(
    ("rule", "key", "parts"),
    [
        pytest.param({"stem": 3}, "groups.depth.stem", ["3", "a string or a list of strings"], id="number"),
        pytest.param({"stem": ["a", 1]}, "groups.depth.stem", ["['a', 1]"], id="list_of_other_things"),
        pytest.param({"stem": "re:("}, "groups.depth.stem", ["'re:('", "not a valid regular expression"], id="regex"),
        pytest.param({"stem": "enc", "layer_decay": None, "lr": 1}, "groups.depth.stem", ["layer_decay"], id="alone"),
        pytest.param({"stem": [], "layer_decay": None, "lr": 1}, "groups.depth.stem", ["layer_decay"], id="none_alone"),
        pytest.param(
            {"layers": None, "params": "enc"}, "groups.depth.layer_decay", ["groups.depth.layers"], id="layers"
        ),
        pytest.param({"layer_decay": 0}, "groups.depth.layer_decay", ["got 0", "> 0 and <= 1", "0.75"], id="zero"),
        pytest.param({"layer_decay": 1.01}, "groups.depth.layer_decay", ["got 1.01", "> 0 and <= 1"], id="above_one"),
        pytest.param({"layer_decay": -0.5}, "groups.depth.layer_decay", ["got -0.5"], id="below_zero"),
        pytest.param({"layer_decay": "0.5"}, "groups.depth.layer_decay", ["got '0.5'"], id="text"),
        pytest.param({"layer_decay": True}, "groups.depth.layer_decay", ["got True"], id="true"),
        pytest.param({"layer_decay": [0.5]}, "groups.depth.layer_decay", ["got [0.5]"], id="list"),
        pytest.param({"layers": "enc.layer"}, "groups.depth.layers", ["'enc.layer'", "one {i}"], id="no_i"),
        pytest.param({"layers": "enc.{i}.{i}"}, "groups.depth.layers", ["'enc.{i}.{i}'", "one {i}"], id="two_i"),
        pytest.param({"layers": "re:enc.{i}"}, "groups.depth.layers", ["'re:enc.{i}'", "one {i}"], id="re"),
        pytest.param({"layers": ["enc.{i}", "x"]}, "groups.depth.layers", ["'x'", "one {i}"], id="one_of_a_list"),
        pytest.param({"layers": "enc.{j}"}, "groups.depth.layers", ["'enc.{j}'", "one {i}"], id="another_letter"),
        pytest.param({"layers": "enc.[{i}]"}, "groups.depth.layers", ["'enc.[{i}]'", "one {i}"], id="in_brackets"),
        pytest.param({"layers": 3}, "groups.depth.layers", ["3", "a string or a list of strings"], id="layers_number"),
        pytest.param({"layers": []}, "groups.depth.layers", ["[]", "a string or a list of strings"], id="layers_empty"),
        pytest.param({"layers": "x" * 200 + "{i}"}, "groups.depth.layers", ["203", "at most 200"], id="too_long"),
    ],
)
def test_invalid_layers_stem_and_layer_decay_are_refused_when_the_factory_is_constructed(rule, key, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", groups=depth_rule(**rule))
    check_message(caught, key, *parts)
