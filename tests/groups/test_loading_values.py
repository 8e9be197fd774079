"""Loading by name: unchanged hyperparameters come from the checkpoint, edited ones from the config."""

from __future__ import annotations

import pytest

from lightning_optim import OptimizerFactory
from tests.support.cases import every
from tests.support.loading_runs import (
    CHANGES,
    MUON,
    SAVED,
    build,
    build_factory,
    train_saved,
    values_by_name,
)
from tests.support.models import Deep
from tests.support.save_and_load import save_and_load

COMPOSITE = "muon + adamw"
configs = pytest.mark.parametrize("config", every(["torch adamw", "own adamw", COMPOSITE], fast=[COMPOSITE]))


@configs
@pytest.mark.parametrize("change", ["same", "renamed", "split", "reordered"])
def test_unchanged_values_come_from_the_checkpoint(config, change):
    model, optimizer = train_saved(config)
    for group in optimizer.param_groups:
        group["lr"] *= 0.375  # as a schedule does
        group["weight_decay"] *= 0.5
        if "betas" in group:
            group["betas"] = (0.875, 0.999)
        else:
            group["momentum"] = 0.875
    resumed_model = Deep()
    resumed = build(config, change, resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    keys = ("lr", "betas", "momentum", "weight_decay", "peak_lr")
    assert values_by_name(resumed_model, resumed, *keys) == values_by_name(model, optimizer, *keys)


EDITS = {
    "weight_decay": ({"weight_decay": 0.5}, "weight_decay", 0.5),
    "betas": ({"betas": [0.5, 0.75]}, "betas", (0.5, 0.75)),
    "eps": ({"eps": 1e-3}, "eps", 1e-3),
    "maximize": ({"maximize": True}, "maximize", True),
    "lr": ({"lr": 0.08}, "lr", 0.08 * 0.375),
    "lr_scale": ({"lr_scale": 2.0}, "lr", 0.08 * 0.375),
    "lr of 0": ({"lr": 0.0}, "lr", 0.0),
}


@configs
@pytest.mark.parametrize(("edit", "key", "value"), EDITS.values(), ids=EDITS)
def test_an_edited_value_comes_from_the_config_and_no_other_does(config, edit, key, value):
    rules = {"tuned": {"params": "head", "eps": 1e-7}}
    keys = ("lr", "betas", "eps", "weight_decay", "maximize")
    model, optimizer = train_saved(config, rules)
    for group in optimizer.param_groups:
        group["lr"] *= 0.375
        group["weight_decay"] *= 0.5
    expected = values_by_name(model, optimizer, *keys)
    resumed_model = Deep()
    resumed = build_factory(config, {"tuned": {**rules["tuned"], **edit}})(resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    for name in ("head.weight", "head.bias"):
        expected[name][keys.index(key)] = value
    found = values_by_name(resumed_model, resumed, *keys)
    if key == "maximize" and config == COMPOSITE:  # a rule that sets it makes Muon our class, which has the key
        expected = {name: [*values[:-1], bool(values[-1])] for name, values in expected.items()}
    assert found == expected
    peaks = values_by_name(resumed_model, resumed, "peak_lr")["head.bias"]
    assert peaks == [edit.get("lr", 0.08) if key == "lr" else 0.04]


def test_an_edited_top_level_value_applies_where_no_rule_sets_another():
    _, optimizer = train_saved(COMPOSITE, {})
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    resumed = OptimizerFactory("adamw", lr=0.16, weight_decay=0.25, groups=MUON)(Deep())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in resumed.param_groups}
    assert found == {"hidden": (0.04, 0.1), "default": (0.08, 0.25)}


def test_merged_groups_take_the_values_they_agree_on():
    _, optimizer = train_saved("torch adamw")
    for group, lr, beta1 in zip(optimizer.param_groups, (0.001, 0.002, 0.003), (0.5, 0.5, 0.25), strict=True):
        group["lr"], group["betas"] = lr, (beta1, 0.999)
    assert [group["name"] for group in optimizer.param_groups] == ["stem", "norm", "default"]
    resumed = build_factory("torch adamw", {})(Deep())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    (group,) = resumed.param_groups
    # `stem` has another peak; `norm` and `default` have this one, and the lr of the first of them is taken.
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.002, (0.9, 0.999), 0.01)


FLAGS = {
    "foreach": ({"foreach": True}, (True, None)),
    "loop": ({"foreach": False}, (False, None)),
    "fused": ({"fused": True}, (None, True)),
}


@pytest.mark.parametrize(("given", "flags"), FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("change", every(["same", "renamed", "split"], fast=["split"]))
@pytest.mark.parametrize("groups", [{}, MUON], ids=["adamw", "muon + adamw"])
def test_execution_flags_are_those_of_the_new_run(given, flags, change, groups):
    state_dict = OptimizerFactory("adamw", fused=False, foreach=False, groups={**groups, **SAVED})(Deep()).state_dict()
    resumed = OptimizerFactory("adamw", groups={**groups, **CHANGES[change]}, **given)(Deep())
    resumed.load_state_dict(state_dict)
    found = [(group["foreach"], group["fused"]) for group in resumed.param_groups if "fused" in group]
    assert found and set(found) == {flags}
