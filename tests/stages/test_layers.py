"""Stages with `layers`: with `each`, one stage per layer, the last layer first; without, one stage."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from lightning_optim.stages.stages import Stage, claim, parse_stages
from tests.support.messages import check_message

NUM_LAYERS = 12


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2, bias=False)) for _ in range(NUM_LAYERS)
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


def claim_stages(model: nn.Module | None = None, **stages: Any) -> list[Stage]:
    return list(claim(parse_stages({"head": HEAD, **stages}), Bert() if model is None else model))


def params_of_layer(number: int) -> set[str]:
    return {f"backbone.encoder.layer.{number}.{leaf}" for leaf in ("0.weight", "1.weight")}


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def test_each_layer_is_a_stage_the_last_layer_first() -> None:
    """Ordered by number, not as text: 10 comes after 9."""
    stages = claim_stages(top=TOP, rest=REST)
    assert names(stages) == ["head", *(f"top.{number}" for number in reversed(range(NUM_LAYERS))), "rest"]
    assert [stage.params for stage in stages[1:-1]] == [
        params_of_layer(number) for number in reversed(range(NUM_LAYERS))
    ]
    assert stages[-1].params == {"backbone.embed.weight", "backbone.pooler.weight"}


def test_last_layer_has_at_and_the_others_count_from_the_previous_layer() -> None:
    triggers = [str(stage.trigger) for stage in claim_stages(top=TOP, rest=REST)]
    after = [f"2 epochs after top.{number}" for number in reversed(range(1, NUM_LAYERS))]
    assert triggers == ["from the start", "epoch 1", *after, "1 epoch after the stage above"]


def test_last_layer_is_trained_from_the_start_without_at() -> None:
    top = claim(parse_stages({"top": {**TOP, "at": None}}), Bert())
    assert [stage.trigger.from_start for stage in top] == [True] + [False] * (NUM_LAYERS - 1)


def test_each_layer_has_a_plateau_of_its_own() -> None:
    config = {"plateau": {"monitor": "val/loss", "patience": 1}}
    layers = claim_stages(top={**TOP, "at": config, "each": config})[1:]
    plateaus = [stage.trigger.plateaus[0] for stage in layers]
    assert len({id(plateau) for plateau in plateaus}) == NUM_LAYERS
    keys = [plateau.key for plateau in plateaus]
    assert keys == ["stages.top.at.plateau.monitor"] + ["stages.top.each.plateau.monitor"] * (NUM_LAYERS - 1)


def test_each_layer_has_the_options_of_its_stage() -> None:
    options = {"lr_scale": 0.5, "warmup_steps": 3, "allow_unused": True, "weight_decay": 0.25}
    for stage in claim_stages(top={**TOP, **options})[1:]:
        assert (stage.lr_scale, stage.warmup_steps, stage.allow_unused) == (0.5, 3, True)
        assert (stage.hyperparameters, stage.key, stage.each) == ({"weight_decay": 0.25}, "stages.top", None)


def test_layers_without_each_are_one_stage() -> None:
    stages = claim_stages(top={"layers": "backbone.encoder.layer.{i}", "at": {"epoch": 1}}, rest=REST)
    assert names(stages) == ["head", "top", "rest"]
    assert stages[1].params == set().union(*map(params_of_layer, range(NUM_LAYERS)))


def test_layers_claimed_by_an_earlier_stage_are_left_out() -> None:
    last = {"params": ["backbone.encoder.layer.10", "backbone.encoder.layer.11"], "at": {"step": 5}}
    stages = claim_stages(last=last, top=TOP, rest=REST)
    assert names(stages)[:4] == ["head", "last", "top.9", "top.8"]
    assert [str(stage.trigger) for stage in stages[2:4]] == ["epoch 1", "2 epochs after top.9"]


def test_layer_counts_from_the_previous_layer_that_is_not_left_out() -> None:
    stages = claim_stages(ninth={"params": "backbone.encoder.layer.9", "at": {"step": 5}}, top=TOP)
    assert names(stages)[2:5] == ["top.11", "top.10", "top.8"]
    assert str(stages[4].trigger) == "2 epochs after top.10"


def test_layer_that_an_earlier_stage_claims_in_part_keeps_its_other_parameters() -> None:
    stages = claim_stages(norms={"params": "backbone.encoder", "kinds": ["norm"]}, top=TOP)
    assert names(stages)[2:] == [f"top.{number}" for number in reversed(range(NUM_LAYERS))]
    assert stages[2].params == {"backbone.encoder.layer.11.0.weight"}


@pytest.mark.parametrize(
    ("selectors", "numbers", "params"),
    [
        ({"kinds": ["norm"]}, range(NUM_LAYERS), {"backbone.encoder.layer.11.1.weight"}),
        ({"classes": "Linear"}, range(NUM_LAYERS), {"backbone.encoder.layer.11.0.weight"}),
        ({"params": "backbone.encoder.layer.[1-3]"}, range(1, 4), params_of_layer(3)),
        ({"layers": "backbone.encoder.layer.1{i}"}, range(2), params_of_layer(11)),
        ({"layers": ["*.blocks.{i}", "*.layer.{i}"]}, range(NUM_LAYERS), params_of_layer(11)),
    ],
    ids=["kinds", "classes", "params", "part of a number", "several patterns"],
)
def test_selectors_narrow_the_layers(selectors, numbers, params) -> None:
    stages = claim_stages(top={**TOP, **selectors})
    assert names(stages)[1:] == [f"top.{number}" for number in reversed(numbers)]
    assert stages[1].params == params


def test_layer_numbers_may_start_anywhere_and_have_gaps() -> None:
    model = nn.ModuleDict({"head": nn.Linear(1, 1), **{f"stage{number}": nn.Linear(1, 1) for number in (2, 30, 4)}})
    stages = claim_stages(model, top={**TOP, "layers": "stage{i}"})
    assert names(stages) == ["head", "top.30", "top.4", "top.2"]
    assert stages[1].params == {"stage30.weight", "stage30.bias"}


# Tied parameters belong to one stage, by their first name


def test_parameter_tied_across_layers_belongs_to_the_layer_of_its_first_name() -> None:
    model = Bert()
    layers = model.backbone.encoder.layer
    layers[10][0].weight = layers[2][0].weight
    stages = {stage.name: stage.params for stage in claim_stages(model, top=TOP)}
    assert stages["top.10"] == {"backbone.encoder.layer.10.1.weight"}
    assert stages["top.2"] == params_of_layer(2)


def test_layer_that_repeats_another_is_not_a_stage() -> None:
    model = Bert()
    model.backbone.encoder.layer[11] = model.backbone.encoder.layer[0]
    stages = claim_stages(model, top=TOP)
    assert names(stages) == ["head", *(f"top.{number}" for number in reversed(range(11)))]
    assert stages[-1].params == params_of_layer(0)


def test_parameter_that_an_earlier_stage_claims_under_another_name_is_left_out() -> None:
    model = Bert()
    model.head.weight = model.backbone.encoder.layer[11][0].weight
    stages = {stage.name: stage.params for stage in claim_stages(model, top=TOP)}
    assert stages["head"] == {"backbone.encoder.layer.11.0.weight"}
    assert stages["top.11"] == {"backbone.encoder.layer.11.1.weight"}


# In the group table


def test_explain_shows_one_group_per_layer() -> None:
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


def test_groups_of_a_rule_with_layers_keep_the_rule_s_numbers() -> None:
    groups = {"depth": {"layers": "backbone.encoder.layer.{i}", "layer_decay": 0.5}}
    plan = {"head": HEAD, "top": {**TOP, "layers": "backbone.encoder.layer.1{i}"}, "rest": REST}
    rows = StagedUnfreeze(plan).explain(Bert(), OptimizerFactory("adamw", lr=1.0, groups=groups)).rows()
    lrs = {row["group"]: row.get("lr") for row in rows}
    assert (lrs["top.1.depth.11"], lrs["top.0.depth.10"], lrs["rest.depth.9"]) == (0.5, 0.25, 0.125)


# Refused


@pytest.mark.parametrize("layers", [{}, {"layers": None}], ids=["none", "null"])
def test_each_without_layers_is_refused(layers) -> None:
    with pytest.raises(ConfigError) as caught:
        claim_stages(top={"params": "backbone", "each": {"epochs": 1}, **layers})
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
def test_wrong_layers_pattern_is_refused(layers, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        claim_stages(top={**TOP, "layers": layers})
    check_message(caught, "stages.top.layers", *parts)


def test_layers_that_match_no_module_are_refused_with_the_nearest_pattern() -> None:
    with pytest.raises(ConfigError) as caught:
        claim_stages(top={**TOP, "layers": "backbone.layers.{i}"})
    near = "Did you mean 'backbone.encoder.layer.{i}'"
    check_message(caught, "stages.top", "layers 'backbone.layers.{i}' matches no module", near, "allow_empty: true")


def test_layer_inside_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        claim_stages(top={**TOP, "layers": "*.{i}"})
    check_message(caught, "stages.top.layers", "backbone.encoder.layer.0.0 is a layer inside layer 0")


def test_layers_that_are_all_claimed_by_an_earlier_stage_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        claim_stages(body={"params": "backbone", "at": {"epoch": 1}}, top=TOP)
    check_message(caught, "stages.top", "all 24 parameters it matches belong to a stage above it", "put the narrower")


def test_layers_that_match_nothing_give_no_stage_with_allow_empty() -> None:
    stages = claim_stages(top={**TOP, "layers": "backbone.layers.{i}", "allow_empty": True}, rest=REST)
    assert names(stages) == ["head", "rest"]
