"""The `layers` selector and `layer_decay`: layers are ordered by the number in their path and counted from the last."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.layered_models import DECAY, ENCODER, depth_rule, lr_by_parameter, params_by_group, plan, tree
from tests.support.messages import check_message

# torch's compiler, when it is imported, uses functions that torch deprecates.
imports_compiler = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


# The depth of each layer


@pytest.mark.parametrize(
    ("names", "layers", "expected"),
    [
        pytest.param(
            [f"l.{i}.w" for i in range(12)], "l.{i}", {f"l.{i}.w": 12 - i for i in range(12)}, id="value_not_text"
        ),
        pytest.param(["l.0.w", "l.4.w", "l.10.w"], "l.{i}", {"l.0.w": 3, "l.4.w": 2, "l.10.w": 1}, id="gaps"),
        pytest.param(["l.10.w", "l.2.w"], "l.{i}", {"l.10.w": 1, "l.2.w": 2}, id="out_of_order"),
        pytest.param(["l.07.w", "l.8.w"], "l.{i}", {"l.07.w": 2, "l.8.w": 1}, id="leading_zero"),
        pytest.param(["layer1.w", "layer2.0.w"], "layer{i}", {"layer1.w": 2, "layer2.0.w": 1}, id="no_dot"),
        pytest.param(["h.b1_x.w", "h.b2_x.w"], "h.b{i}_x", {"h.b1_x.w": 2, "h.b2_x.w": 1}, id="in_the_middle"),
        pytest.param(
            ["a.l.0.w", "a.l.1.w", "b.l.0.w"], "*.l.{i}", {"a.l.0.w": 2, "a.l.1.w": 1, "b.l.0.w": 2}, id="star"
        ),
        pytest.param(
            ["a.l.0.w", "b.k.1.w", "c.w"], ["a.l.{i}", "b.k.{i}"], {"a.l.0.w": 2, "b.k.1.w": 1, "c.w": 0}, id="list"
        ),
        pytest.param(
            ["l.0.w", "l.0.k.0.w", "l.1.k.7.w"],
            "l.{i}",
            {"l.0.w": 2, "l.0.k.0.w": 2, "l.1.k.7.w": 1},
            id="all_beneath",
        ),
        pytest.param(
            ["l.0.w", "xl.1.w", "l.1x.w"], "l.{i}", {"l.0.w": 1, "xl.1.w": 0, "l.1x.w": 0}, id="matched_whole"
        ),
        pytest.param(["l.0", "l.x.w"], "l.{i}", None, id="a_parameter_is_no_layer"),
    ],
)
def test_layers_are_counted_from_the_last_in_the_order_of_their_numbers(names, layers, expected):
    model = tree(*names)
    if expected is None:
        with pytest.raises(ConfigError, match=r"^groups\.depth: layers 'l\.\{i\}' matches no module"):
            lr_by_parameter(model, depth_rule(layers))
    else:
        assert lr_by_parameter(model, depth_rule(layers)) == {name: DECAY**power for name, power in expected.items()}


def test_a_layer_without_a_parameter_is_not_counted():
    model = tree("l.0.w", "l.2.w")
    model.l.add_module("1", nn.Tanh())
    model.l.add_module("3", nn.Dropout())
    assert lr_by_parameter(model, depth_rule("l.{i}")) == {"l.0.w": DECAY**2, "l.2.w": DECAY}


TOWERS = ["text.l.0.w", "text.l.1.w", "text.l.2.w", "image.l.0.w", "image.l.5.w"]


@pytest.mark.parametrize(
    ("rule", "powers"),
    [
        pytest.param({}, [4, 3, 2, 4, 1], id="both_counted_together"),
        pytest.param({"params": "text"}, [3, 2, 1, 0, 0], id="text"),
        pytest.param({"params": "image"}, [0, 0, 0, 2, 1], id="image"),
        pytest.param({"params": ["text.l.0", "image.l.5"]}, [2, 0, 0, 0, 1], id="a_layer_of_each"),
    ],
)
def test_params_choose_the_towers_whose_layers_are_counted(rule, powers):
    expected = {name: DECAY**power for name, power in zip(TOWERS, powers, strict=True)}
    assert lr_by_parameter(tree(*TOWERS), depth_rule("*.l.{i}", **rule)) == expected


def test_two_rules_count_each_tower_separately():
    groups = {
        name: {"params": name, "layers": "*.l.{i}", "layer_decay": decay}
        for name, decay in (("text", 0.5), ("image", 0.25))
    }
    assert list(lr_by_parameter(tree(*TOWERS), groups).values()) == [0.5**3, 0.5**2, 0.5, 0.25**2, 0.25]


class Mixed(nn.Module):
    """Layers, some without a bias, one without a matrix."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.LayerNorm(2), nn.Linear(2, 2)]
        self.layer = nn.ModuleList(layers)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param({}, {"0.weight": 4, "0.bias": 4, "1.weight": 3, "2.weight": 2, "2.bias": 2}, id="all"),
        pytest.param({"kinds": "matrix"}, {"0.weight": 4, "1.weight": 3}, id="matrix"),
        pytest.param({"kinds": "bias"}, {"0.bias": 4, "2.bias": 2}, id="bias"),
        pytest.param({"classes": "LayerNorm"}, {"2.weight": 2, "2.bias": 2}, id="classes"),
    ],
)
def test_kinds_and_classes_do_not_change_the_depth_of_a_layer(selector, expected):
    powers = {f"layer.{name}": power for name, power in expected.items()}
    if selector.get("kinds") != "bias" and "classes" not in selector:
        powers["layer.3.weight"] = 1
    if selector.get("kinds") != "matrix" and "classes" not in selector:
        powers["layer.3.bias"] = 1
    found = lr_by_parameter(Mixed(), depth_rule("layer.{i}", **selector))
    assert {name: lr for name, lr in found.items() if lr != 1.0} == {n: DECAY**p for n, p in powers.items()}


def test_a_layer_decay_of_one_keeps_the_lr_and_a_group_for_each_layer():
    model = tree(*ENCODER)
    groups = depth_rule(layer_decay=1)
    assert set(lr_by_parameter(model, groups).values()) == {1.0}
    assert list(params_by_group(model, groups)) == ["depth.stem", "depth.0", "depth.1", "default"]


# Groups


def test_each_layer_is_a_group_named_by_its_number():
    assert params_by_group(tree(*ENCODER), depth_rule()) == {
        "depth.stem": ["enc.embed.weight"],
        "depth.0": ["enc.layer.0.fc.weight", "enc.layer.0.fc.bias"],
        "depth.1": ["enc.layer.1.fc.weight", "enc.layer.1.fc.bias"],
        "default": ["enc.pooler.weight", "head.weight"],
    }


@pytest.mark.parametrize("effect", [{}, {"weight_decay": 0.5}, {"lr_scale": 0.5}], ids=str)
def test_layers_without_layer_decay_are_separate_groups_and_there_is_no_stem(effect):
    found = params_by_group(tree(*ENCODER), {"depth": {"layers": "enc.layer.{i}", **effect}})
    assert list(found) == ["default", "depth.0", "depth.1"]
    assert found["default"] == ["enc.embed.weight", "enc.pooler.weight", "head.weight"]


def test_the_same_number_in_two_towers_is_one_group():
    found = params_by_group(tree(*TOWERS), depth_rule("*.l.{i}"))
    assert found["depth.0"] == ["text.l.0.w", "image.l.0.w"]


@pytest.mark.parametrize(
    ("effect", "field", "expected"),
    [
        pytest.param({"lr_scale": 0.25}, "lr", [0.25 * 0.5**2, 0.25 * 0.5], id="with_lr_scale"),
        pytest.param({"lr": 4.0}, "lr", [4 * 0.5**2, 4 * 0.5], id="with_lr"),
        pytest.param({"weight_decay": 0.25}, "weight_decay", [0.25, 0.25], id="leaves_the_weight_decay"),
        pytest.param({"optimizer": "lion", "lr": 2.0}, "lr", [2 * 0.5**2, 2 * 0.5], id="with_optimizer"),
    ],
)
def test_layer_decay_multiplies_the_lr_that_the_rule_sets(effect, field, expected):
    found = plan(tree(*ENCODER), depth_rule(stem=[], **effect)).groups
    assert [group.hyperparameters[field] for group in found if group.name != "default"] == expected


def test_several_rules_with_layers_apply_to_one_parameter():
    groups = {
        **depth_rule(stem=[]),
        "twice": {"layers": "enc.layer.{i}", "layer_decay": 0.25},
        "flat": {"layers": "*.{i}", "weight_decay": 0},
    }
    model = tree(*ENCODER)
    found = plan(model, groups).groups
    assert [(group.name, group.hyperparameters["lr"]) for group in found] == [
        ("twice.stem", 0.25**3),
        ("depth.0.flat.0.twice.0", 0.5**2 * 0.25**2),
        ("depth.1.flat.1.twice.1", 0.5 * 0.25),
        ("default", 1.0),
    ]
    assert [group.made_by for group in found[:3]] == [("twice",), *[("depth", "flat", "twice")] * 2]


def test_another_rule_splits_the_groups_of_the_layers():
    found = params_by_group(Mixed(), {**depth_rule("layer.{i}"), "no_decay": {"kinds": "bias", "weight_decay": 0}})
    assert list(found) == [
        "depth.0",
        "depth.0.no_decay",
        "depth.1",
        "depth.2",
        "depth.2.no_decay",
        "depth.3",
        "depth.3.no_decay",
    ]


def test_layers_may_be_frozen_or_have_a_schedule():
    model = tree(*ENCODER)
    frozen = plan(model, {"cold": {"layers": "enc.layer.{i}", "params": "enc.layer.0", "frozen": True}})
    assert frozen.frozen == ("enc.layer.0.fc.weight", "enc.layer.0.fc.bias")
    warm = plan(model, depth_rule(schedule="constant"))
    assert {group.name: group.schedule for group in warm.groups} == {
        **{name: {"name": "constant"} for name in ("depth.stem", "depth.0", "depth.1")},
        "default": None,
    }


def test_a_checkpoint_has_the_names_of_the_layers_groups():
    model = tree(*ENCODER)
    optimizer = OptimizerFactory("adamw", groups=depth_rule())(model)
    saved = optimizer.state_dict()["param_groups"]
    assert {group["name"]: group["param_names"] for group in saved} == params_by_group(model, depth_rule())


def test_state_follows_its_parameter_when_a_layer_is_added_on_top():
    """Every depth changes then, and so does each lr."""
    small, large = tree("l.0.w", "l.1.w"), tree("l.0.w", "l.1.w", "l.2.w")
    optimizer = OptimizerFactory("adamw", lr=1.0, groups=depth_rule("l.{i}"))(small)
    for number, parameter in enumerate(small.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, float(number))
    optimizer.step()
    state = optimizer.state_dict()
    state["param_groups"].append(
        {**state["param_groups"][-1], "name": "depth.2", "param_names": ["l.2.w"], "params": [2]}
    )
    state["state"][2] = {key: value.clone() for key, value in state["state"][1].items()}
    again = OptimizerFactory("adamw", lr=1.0, groups=depth_rule("l.{i}"))(large)
    again.load_state_dict(state)
    assert [group["lr"] for group in again.param_groups] == [0.125, 0.25, 0.5]
    for name in ("l.0.w", "l.1.w"):
        before, after = optimizer.state[small.get_parameter(name)], again.state[large.get_parameter(name)]
        assert torch.equal(before["exp_avg"], after["exp_avg"])


# Layers that match nothing, or overlap


def test_layers_that_match_nothing_are_refused_with_the_numbered_modules():
    with pytest.raises(ConfigError) as caught:
        plan(tree(*ENCODER, "aux.blocks.0.w"), depth_rule("encoder.layer.{i}"))
    check_message(
        caught,
        "groups.depth",
        "layers 'encoder.layer.{i}' matches no module",
        "Did you mean 'enc.layer.{i}'",
        "aux.blocks.{i}",
        "groups.depth.allow_empty: true",
    )


def test_layers_in_a_model_without_numbered_modules_are_refused():
    with pytest.raises(ConfigError) as caught:
        plan(tree("enc.w", "head.w"), depth_rule())
    check_message(caught, "groups.depth", "No module path of the model ends with a number")


def test_layers_may_match_nothing_with_allow_empty():
    assert list(params_by_group(tree("enc.w"), depth_rule(allow_empty=True))) == ["default"]


def test_selectors_that_match_nothing_together_are_refused():
    with pytest.raises(ConfigError, match=r"^groups\.depth: each of its selectors .* no parameter matches all of them"):
        plan(Mixed(), depth_rule("layer.{i}", params="layer.1", kinds="bias"))


@pytest.mark.parametrize("layers", ["*.{i}", ["l.{i}", "l.*.k.{i}"]], ids=str)
def test_a_layer_inside_a_layer_is_refused(layers):
    with pytest.raises(ConfigError) as caught:
        plan(tree("l.0.k.3.w", "l.1.w"), depth_rule(layers))
    check_message(caught, "groups.depth.layers", "l.0.k.3 is a layer inside layer 0", "{i}")


def test_params_can_exclude_the_inner_layers():
    groups = depth_rule("*.{i}", params="enc.layer.?.fc*")
    assert lr_by_parameter(tree("enc.layer.0.k.3.w", "enc.layer.0.fc.w", "enc.layer.1.fc.w"), groups) == {
        "enc.layer.0.k.3.w": 1.0,
        "enc.layer.0.fc.w": 0.25,
        "enc.layer.1.fc.w": 0.5,
    }


# Tied parameters and shared modules


def test_a_tensor_tied_across_two_layers_is_in_the_first():
    model = tree(*ENCODER)
    model.enc.layer._modules["1"].fc.weight = model.enc.layer._modules["0"].fc.weight
    found = params_by_group(model, depth_rule())
    assert found["depth.0"] == ["enc.layer.0.fc.weight", "enc.layer.0.fc.bias"]
    assert found["depth.1"] == ["enc.layer.1.fc.bias"]


def test_a_module_that_all_layers_share_is_in_the_first_and_all_are_counted():
    shared = nn.Linear(2, 2)
    layers = [nn.Sequential(shared, nn.LayerNorm(2)) for _ in range(3)]
    model = nn.ModuleDict({"albert": nn.ModuleDict({"embed": nn.Linear(2, 2), "l": nn.ModuleList(layers)})})
    assert lr_by_parameter(model, depth_rule("albert.l.{i}")) == {
        **dict.fromkeys(("albert.embed.weight", "albert.embed.bias"), DECAY**4),
        **dict.fromkeys(("albert.l.0.0.weight", "albert.l.0.0.bias"), DECAY**3),
        **{f"albert.l.{i}.1.{leaf}": DECAY ** (3 - i) for i in range(3) for leaf in ("weight", "bias")},
    }


def test_one_layer_used_several_times_is_one_group():
    model = nn.ModuleDict({"l": nn.ModuleList([nn.Linear(2, 2)] * 4)})
    assert params_by_group(model, depth_rule("l.{i}")) == {"depth.0": ["l.0.weight", "l.0.bias"]}


# Wrappers


@imports_compiler
def test_layers_are_found_behind_wrappers():
    model = nn.ModuleDict({"l": nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])})
    expected = lr_by_parameter(model, depth_rule("l.{i}"))
    model.l[1] = torch.compile(model.l[1])
    for wrapped in (model, torch.compile(model), nn.DataParallel(model), torch.compile(nn.DataParallel(model))):
        assert lr_by_parameter(wrapped, depth_rule("l.{i}")) == expected
        assert lr_by_parameter(wrapped.parameters(), depth_rule("l.{i}")) == expected


PARAMETRIZE = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("parametrize", PARAMETRIZE.values(), ids=PARAMETRIZE)
def test_layers_with_parametrized_tensors_are_counted_as_others(parametrize):
    model = nn.ModuleDict({"l": nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])})
    parametrize(model.l[0])
    found = lr_by_parameter(model, depth_rule("l.{i}"))
    assert {name.split(".")[1]: lr for name, lr in found.items()} == {"0": 0.125, "1": 0.25, "2": 0.5}
