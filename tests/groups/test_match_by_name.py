"""`Plan.remap` and `check_same_groups`: a state dict in a plan's groups, by parameter name or by position."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_optim import ConfigError
from lightning_optim.groups.match_by_name import check_same_groups, match_groups
from lightning_optim.groups.plan import Plan
from tests.support.equality import equal
from tests.support.loading_runs import CHANGES, SAVED, OtherModel, build_factory, train_saved
from tests.support.models import Deep


def test_remap_puts_a_state_dict_into_the_groups_of_the_plan():
    model, optimizer = train_saved("torch adamw")
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict)
    plan = build_factory("torch adamw", CHANGES["split"]).plan(model)
    remapped = plan.remap(state_dict)
    assert equal(state_dict, before)
    keys = {n: key for g in state_dict["param_groups"] for n, key in zip(g["param_names"], g["params"], strict=True)}
    assert [group["name"] for group in remapped["param_groups"]] == [group.name for group in plan.groups]
    for group, param_group in zip(plan.groups, remapped["param_groups"], strict=True):
        assert list(param_group["param_names"]) == list(group.params)
        assert param_group["params"] == [keys[name] for name in group.params]
    assert equal(remapped["state"], state_dict["state"])


def test_remap_merges_values_as_a_load_does():
    model, optimizer = train_saved("torch adamw")
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    rules = {**SAVED, "late": {"params": "head", "lr_scale": 2.0, "weight_decay": 0.5}}
    factory = build_factory("torch adamw", rules)
    remapped = factory.plan(model).remap(optimizer.state_dict())
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in remapped["param_groups"]}
    assert found == {"stem": (0.01, 0.01), "norm": (0.02, 0.125), "default": (0.02, 0.01), "late": (0.04, 0.5)}
    resumed = factory(Deep())
    resumed.load_state_dict(optimizer.state_dict())
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in resumed.param_groups} == found


def test_remap_refuses_a_state_dict_of_another_model():
    _, optimizer = train_saved("torch adamw")
    factory = build_factory("torch adamw", SAVED)
    with pytest.raises(ConfigError, match=r"2 parameters of this run: neck\.weight, neck\.bias"):
        factory.plan(OtherModel(more=True)).remap(optimizer.state_dict())
    with pytest.raises(ConfigError, match=r"head\.weight has the shape \[2, 8\], the parameter \[3, 8\]"):
        factory.plan(OtherModel(3)).remap(optimizer.state_dict())


def test_the_plan_of_a_hand_made_optimizer_can_remap_too():
    model, optimizer = train_saved("own adamw")
    by_hand = torch.optim.AdamW(model.named_parameters())
    (group,) = Plan.from_optimizer(by_hand, model).remap(optimizer.state_dict())["param_groups"]
    assert list(group["param_names"]) == list(dict(model.named_parameters()))


def saved_groups(*groups):
    return [{"name": name, "param_names": names} for name, *names in groups]


CURRENT = saved_groups(("default", "a", "b"), ("head", "c"))
SAME_GROUPS = {
    "same": saved_groups(("default", "a", "b"), ("head", "c")),
    "renamed": saved_groups(("default", "a", "b"), ("renamed", "c")),
    "without names": [{"params": [0, 1]}, {"params": [2]}],
}


@pytest.mark.parametrize("saved", SAME_GROUPS.values(), ids=SAME_GROUPS)
def test_groups_with_the_same_parameters_are_accepted(saved):
    check_same_groups(CURRENT, saved)


OTHER_GROUPS = {
    "fewer": (saved_groups(("default", "a", "b", "c")), ["1 param groups (default)", "2 (default, head)"]),
    "other parameters": (
        saved_groups(("default", "a"), ("head", "b", "c")),
        ["'default' of this run", "'default' in the checkpoint", "1 parameters: b."],
    ),
    "swapped": (
        saved_groups(("neck", "c"), ("default", "a", "b")),
        ["'default' of this run", "'neck' in the checkpoint", "3 parameters: a, b, c."],
    ),
    "other order": (saved_groups(("default", "b", "a"), ("head", "c")), ["'default' of this run", ": a, b."]),
}


@pytest.mark.parametrize(("saved", "parts"), OTHER_GROUPS.values(), ids=OTHER_GROUPS)
def test_groups_with_other_parameters_are_refused_by_name(saved, parts):
    with pytest.raises(ConfigError) as caught:
        check_same_groups(CURRENT, saved)
    assert [part for part in parts if part not in str(caught.value)] == [], caught.value
    assert "Use the groups and stages that the checkpoint was saved with" in str(caught.value)


def test_the_groups_of_an_optimizer_are_compared_with_those_of_its_state_dict():
    model, optimizer = train_saved("torch adamw")
    saved = optimizer.state_dict()["param_groups"]
    check_same_groups(build_factory("torch adamw", SAVED)(model).param_groups, saved)
    with pytest.raises(ConfigError, match=r"3 param groups \(stem, norm, default\), this run 1 \(default\)"):
        check_same_groups(build_factory("torch adamw", {})(model).param_groups, saved)
    other_rules = {**SAVED, "stem": {"params": "backbone.3", "lr_scale": 0.5}}
    with pytest.raises(ConfigError, match="differ in 4 parameters"):
        check_same_groups(build_factory("torch adamw", other_rules)(model).param_groups, saved)


# torch.distributed.checkpoint: it has put each parameter into its current group, and `params` are names


def test_groups_of_a_distributed_checkpoint_have_the_sources_of_their_parameters():
    current = [{"param_names": ["a"]}, {"param_names": ["b"]}, {"param_names": ["c"]}]
    saved = [
        {"params": ["a"], "param_names": ["a", "b"], "lr": 0.5},  # the values of one saved group, given to the first
        {"params": ["b"]},
        {"params": ["c"], "param_names": ["c"], "lr": 0.25},
    ]
    matches = match_groups(current, {"state": {}, "param_groups": saved})
    assert [match.sources for match in matches] == [[saved[0]], [saved[0]], [saved[2]]]
    assert [match.state_keys for match in matches] == [["a"], ["b"], ["c"]]


def test_groups_of_a_distributed_checkpoint_without_names_are_matched_by_position():
    saved = [{"params": ["a"], "lr": 0.5}, {"params": ["b"]}]
    matches = match_groups([{}, {}], {"state": {}, "param_groups": saved})
    assert [match.sources for match in matches] == [[saved[0]], []]
