"""A stage with `layers` and `each` is one stage a layer, from the last on; with `layers` alone it is one stage."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from lightning_optim.stages.stages import Stage, claim, parse_stages
from tests.support.messages import check_message

LAYERS = 12


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2, bias=False)) for _ in range(LAYERS)
        )


class Bert(nn.Module):
    """An embedding, twelve layers of a matrix and a norm, a pooler, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embed = nn.Embedding(3, 2)
        self.backbone.encoder = Encoder()
        self.backbone.pooler = nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(2, 2, bias=False)


HEAD = {"params": "head"}
TOP = {"layers": "backbone.encoder.layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 2}}
REST = {"params": "backbone", "at": {"after": {"epochs": 1}}}


def claimed(model: nn.Module | None = None, **stages: Any) -> list[Stage]:
    return list(claim(parse_stages({"head": HEAD, **stages}), Bert() if model is None else model))


def layer(number: int) -> set[str]:
    return {f"backbone.encoder.layer.{number}.{leaf}" for leaf in ("0.weight", "1.weight")}


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def test_each_layer_is_a_stage_from_the_last_on() -> None:
    """In the order of the numbers: 10 comes after 9, not after 1."""
    stages = claimed(top=TOP, rest=REST)
    assert names(stages) == ["head", *(f"top.{number}" for number in reversed(range(LAYERS))), "rest"]
    assert [stage.params for stage in stages[1:-1]] == [layer(number) for number in reversed(range(LAYERS))]
    assert stages[-1].params == {"backbone.embed.weight", "backbone.pooler.weight"}


def test_the_last_layer_has_the_stages_own_trigger_and_the_others_count_from_the_one_before() -> None:
    triggers = [str(stage.trigger) for stage in claimed(top=TOP, rest=REST)]
    after = [f"2 epochs after top.{number}" for number in reversed(range(1, LAYERS))]
    assert triggers == ["from the start", "epoch 1", *after, "1 epoch after the stage above"]


def test_without_a_trigger_the_last_layer_is_trained_from_the_start() -> None:
    top = claim(parse_stages({"top": {**TOP, "at": None}}), Bert())
    assert [stage.trigger.from_start for stage in top] == [True] + [False] * (LAYERS - 1)


def test_each_layer_watches_its_metric_for_itself() -> None:
    plateau = {"plateau": {"monitor": "val/loss", "patience": 1}}
    layers = claimed(top={**TOP, "at": plateau, "each": plateau})[1:]
    watched = [stage.trigger.plateaus[0] for stage in layers]
    assert len({id(one) for one in watched}) == LAYERS
    keys = [one.key for one in watched]
    assert keys == ["stages.top.at.plateau.monitor"] + ["stages.top.each.plateau.monitor"] * (LAYERS - 1)


def test_each_layer_has_all_that_its_stage_says() -> None:
    options = {"lr_scale": 0.5, "warmup_steps": 3, "allow_unused": True, "weight_decay": 0.25}
    for stage in claimed(top={**TOP, **options})[1:]:
        assert (stage.lr_scale, stage.warmup_steps, stage.allow_unused) == (0.5, 3, True)
        assert (stage.hyperparameters, stage.key, stage.each) == ({"weight_decay": 0.25}, "stages.top", None)


def test_without_each_the_layers_are_one_stage() -> None:
    stages = claimed(top={"layers": "backbone.encoder.layer.{i}", "at": {"epoch": 1}}, rest=REST)
    assert names(stages) == ["head", "top", "rest"]
    assert stages[1].params == set().union(*map(layer, range(LAYERS)))


def test_layers_of_a_stage_above_are_left_out() -> None:
    last = {"params": ["backbone.encoder.layer.10", "backbone.encoder.layer.11"], "at": {"step": 5}}
    stages = claimed(last=last, top=TOP, rest=REST)
    assert names(stages)[:4] == ["head", "last", "top.9", "top.8"]
    assert [str(stage.trigger) for stage in stages[2:4]] == ["epoch 1", "2 epochs after top.9"]


def test_a_layer_in_the_middle_that_is_left_out_is_not_counted_from() -> None:
    stages = claimed(ninth={"params": "backbone.encoder.layer.9", "at": {"step": 5}}, top=TOP)
    assert names(stages)[2:5] == ["top.11", "top.10", "top.8"]
    assert str(stages[4].trigger) == "2 epochs after top.10"


def test_of_a_layer_that_a_stage_above_has_in_part_the_rest_is_its_stage() -> None:
    stages = claimed(norms={"params": "backbone.encoder", "kinds": ["norm"]}, top=TOP)
    assert names(stages)[2:] == [f"top.{number}" for number in reversed(range(LAYERS))]
    assert stages[2].params == {"backbone.encoder.layer.11.0.weight"}


@pytest.mark.parametrize(
    ("selectors", "numbers", "params"),
    [
        ({"kinds": ["norm"]}, range(LAYERS), {"backbone.encoder.layer.11.1.weight"}),
        ({"classes": "Linear"}, range(LAYERS), {"backbone.encoder.layer.11.0.weight"}),
        ({"params": "backbone.encoder.layer.[1-3]"}, range(1, 4), layer(3)),
        ({"layers": "backbone.encoder.layer.1{i}"}, range(2), layer(11)),
        ({"layers": ["*.blocks.{i}", "*.layer.{i}"]}, range(LAYERS), layer(11)),
    ],
    ids=["kinds", "classes", "params", "part of a number", "several patterns"],
)
def test_selectors_narrow_the_layers(selectors, numbers, params) -> None:
    stages = claimed(top={**TOP, **selectors})
    assert names(stages)[1:] == [f"top.{number}" for number in reversed(numbers)]
    assert stages[1].params == params


def test_numbers_need_neither_begin_at_0_nor_follow_each_other() -> None:
    model = nn.ModuleDict({"head": nn.Linear(1, 1), **{f"stage{number}": nn.Linear(1, 1) for number in (2, 30, 4)}})
    stages = claimed(model, top={**TOP, "layers": "stage{i}"})
    assert names(stages) == ["head", "top.30", "top.4", "top.2"]
    assert stages[1].params == {"stage30.weight", "stage30.bias"}


# Tied parameters: each belongs to one stage, the one of its first name.


def test_a_parameter_tied_across_layers_thaws_with_the_first_of_them() -> None:
    model = Bert()
    layers = model.backbone.encoder.layer
    layers[10][0].weight = layers[2][0].weight
    stages = {stage.name: stage.params for stage in claimed(model, top=TOP)}
    assert stages["top.10"] == {"backbone.encoder.layer.10.1.weight"}
    assert stages["top.2"] == layer(2)


def test_a_layer_that_is_another_again_is_no_stage() -> None:
    model = Bert()
    model.backbone.encoder.layer[11] = model.backbone.encoder.layer[0]
    stages = claimed(model, top=TOP)
    assert names(stages) == ["head", *(f"top.{number}" for number in reversed(range(11)))]
    assert stages[-1].params == layer(0)


def test_a_parameter_that_a_stage_above_has_under_another_name_is_left_out() -> None:
    model = Bert()
    model.head.weight = model.backbone.encoder.layer[11][0].weight
    stages = {stage.name: stage.params for stage in claimed(model, top=TOP)}
    assert stages["head"] == {"backbone.encoder.layer.11.0.weight"}
    assert stages["top.11"] == {"backbone.encoder.layer.11.1.weight"}


# In the table


def test_the_layers_are_named_in_the_groups() -> None:
    plan = {"head": HEAD, "top": {**TOP, "params": "backbone.encoder.layer.1?", "lr_scale": 0.5}}
    rows = StagedUnfreeze({**plan, "rest": REST}).explain(
        Bert(), OptimizerFactory("adamw", lr=0.5, groups={"no_decay": {"kinds": ["norm"], "weight_decay": 0}})
    )
    assert [(row["group"], row.get("thaws"), row.get("lr")) for row in rows.rows()] == [
        ("head", "from the start", 0.5),
        ("top.11", "epoch 1", 0.25),
        ("top.11.no_decay", "epoch 1", 0.25),
        ("top.10", "2 epochs after top.11", 0.25),
        ("top.10.no_decay", "2 epochs after top.11", 0.25),
        ("rest", "1 epoch after the stage above", 0.5),
        ("rest.no_decay", "1 epoch after the stage above", 0.5),
        ("all", None, None),
    ]


def test_a_rule_with_layers_of_its_own_keeps_their_names() -> None:
    groups = {"depth": {"layers": "backbone.encoder.layer.{i}", "layer_decay": 0.5}}
    plan = {"head": HEAD, "top": {**TOP, "layers": "backbone.encoder.layer.1{i}"}, "rest": REST}
    rows = StagedUnfreeze(plan).explain(Bert(), OptimizerFactory("adamw", lr=1.0, groups=groups)).rows()
    lrs = {row["group"]: row.get("lr") for row in rows}
    assert (lrs["top.1.depth.11"], lrs["top.0.depth.10"], lrs["rest.depth.9"]) == (0.5, 0.25, 0.125)


# Refused


@pytest.mark.parametrize("layers", [{}, {"layers": None}], ids=["none", "null"])
def test_each_without_layers_is_refused(layers) -> None:
    with pytest.raises(ConfigError) as caught:
        claimed(top={"params": "backbone", "each": {"epochs": 1}, **layers})
    check_message(caught, "stages.top.each", 'stages.top.layers: "top.layer.{i}"')


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ("backbone.layer.3", ("'backbone.layer.3'", "stages.top.layers: backbone.encoder.layer.{i}")),
        ("{i}.layer.{i}", ("one {i}", "stages.top.layers: backbone.encoder.layer.{i}")),
        ("re:layer.{i}", ("'re:layer.{i}'", "stages.top.layers: backbone.encoder.layer.{i}")),
        (3, ("got 3", "layers: [a, b]")),
        ([], ("got []", "layers: [a, b]")),
    ],
    ids=["no number", "two numbers", "regex", "a number", "an empty list"],
)
def test_what_is_no_pattern_of_layers_is_refused(layers, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        claimed(top={**TOP, "layers": layers})
    check_message(caught, "stages.top.layers", *parts)


def test_layers_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError) as caught:
        claimed(top={**TOP, "layers": "backbone.layers.{i}"})
    near = "Did you mean 'backbone.encoder.layer.{i}'"
    check_message(caught, "stages.top", "layers 'backbone.layers.{i}' matches no module", near, "allow_empty: true")


def test_a_layer_within_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        claimed(top={**TOP, "layers": "*.{i}"})
    check_message(caught, "stages.top.layers", "backbone.encoder.layer.0.0 is a layer inside layer 0")


def test_layers_all_of_which_a_stage_above_has_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        claimed(body={"params": "backbone", "at": {"epoch": 1}}, top=TOP)
    check_message(caught, "stages.top", "all 24 parameters it matches belong to a stage above it", "put the narrower")


def test_no_layers_are_no_stage_where_that_is_allowed() -> None:
    stages = claimed(top={**TOP, "layers": "backbone.layers.{i}", "allow_empty": True}, rest=REST)
    assert names(stages) == ["head", "rest"]
