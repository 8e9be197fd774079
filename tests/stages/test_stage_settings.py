"""`StagedUnfreeze.settings_of`: a parameter's stage, when it thaws, and what its stage sets."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from tests.support.models import Net

HEAD = {"params": ["head", "embed"]}
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
WEIGHT = "backbone.layer.0.proj.weight"


def rows_of(parameter: str, groups: Any = NO_DECAY, model: nn.Module | None = None, /, **stages: Any) -> dict[str, Any]:
    """By field: the value, and the keys that set it."""
    factory = OptimizerFactory("adamw", lr=0.5, groups=groups)
    rows = StagedUnfreeze({"head": HEAD, **stages}).settings_of(parameter, model or Net(), factory).rows()
    return {field: (value, keys) for field, value, keys in rows}


def test_a_parameter_has_its_stage_and_the_lr_from_its_thaw_on():
    backbone = {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 5, "eps": 0.5}
    rows = rows_of("backbone.layer.0.proj.bias", backbone=backbone)
    assert list(rows)[:6] == ["stage", "thaws", "lr_scale", "warmup_steps", "optimizer", "lr"]
    assert rows["stage"] == ("backbone", "stages.backbone")
    assert rows["thaws"] == ("epoch 1", "stages.backbone.at")
    assert rows["lr_scale"] == ("0.25", "stages.backbone.lr_scale")
    assert rows["warmup_steps"] == ("5", "stages.backbone.warmup_steps")
    assert rows["lr"] == ("0.125", "lr × stages.backbone.lr_scale")
    assert rows["eps"] == ("0.5", "stages.backbone.eps")
    assert rows["weight_decay"] == ("0.0", "groups.no_decay.weight_decay")


def test_a_stage_from_the_start_has_no_trigger_and_the_configured_lr():
    rows = rows_of("head.weight", backbone={"params": "backbone", "at": {"epoch": 1}})
    assert rows["thaws"] == ("from the start", "the default")
    assert rows["lr_scale"] == ("1.0", "the default")
    assert rows["lr"] == ("0.5", "lr")
    assert "warmup_steps" not in rows


def test_the_lr_of_a_stage_replaces_that_of_the_rules():
    backbone = {"params": "backbone", "at": {"step": 3}, "lr": 0.25, "lr_scale": 0.5}
    rows = rows_of(WEIGHT, {"slow": {"params": "backbone", "lr": 2.0}}, backbone=backbone)
    assert rows["lr_scale"] == ("0.0625", "stages.backbone.lr × stages.backbone.lr_scale")
    assert rows["lr"] == ("0.125", "stages.backbone.lr × stages.backbone.lr_scale")


def test_layers_that_thaw_one_by_one_have_the_keys_of_their_triggers():
    top = {"layers": "backbone.layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 2}}
    groups = {"depth": {"layers": "backbone.layer.{i}", "layer_decay": 0.5}}
    last, first = (rows_of(f"backbone.layer.{number}.proj.weight", groups, top=top) for number in (1, 0))
    assert (last["stage"], last["thaws"]) == (("top.1", "stages.top"), ("epoch 1", "stages.top.at"))
    assert (first["stage"], first["thaws"]) == (
        ("top.0", "stages.top"),
        ("2 epochs after top.1", "stages.top.each"),
    )
    assert first["layer"] == ("0", "groups.depth.layers")
    assert first["lr"] == ("0.125", "lr × groups.depth.layer_decay ** 2")


def test_a_parameter_that_a_rule_freezes_has_that_rule():
    groups = {"cold": {"params": "embed", "frozen": True}}
    assert rows_of("embed.weight", groups, backbone={"params": "backbone"}) == {
        "frozen": ("true", "groups.cold.frozen")
    }


def test_a_parameter_without_gradient_and_stage_is_never_trained():
    model = Net()
    model.backbone.requires_grad_(False)
    assert rows_of(WEIGHT, NO_DECAY, model) == {
        "frozen": ("true", "requires_grad=False, and no stage selects it"),
    }


def test_the_settings_print_as_a_table():
    factory = OptimizerFactory("adamw", lr=0.5)
    unfreeze = StagedUnfreeze({"head": HEAD, "backbone": {"params": "backbone", "at": {"epoch": 1}}})
    text = str(unfreeze.settings_of(WEIGHT, Net(), factory))
    assert f"{WEIGHT}: in the group backbone" in text and "epoch 1" in text


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ConfigError, match=r"^'haed\.weight' matches none of 11 names"):
        rows_of("haed.weight", backbone={"params": "backbone"})
