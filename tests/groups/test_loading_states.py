"""Loading by name: after an edit of the rules, each parameter gets its own state, and training continues exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from lightning_optim import SchedulerFactory
from tests.support.cases import each_value
from tests.support.equality import equal
from tests.support.loading_runs import (
    CHANGES,
    CONFIGS,
    SAME_VALUES,
    SAVED,
    assert_names_are_right,
    build,
    build_factory,
    run,
    saved_states,
    states_by_name,
    train_saved,
)
from tests.support.models import Deep
from tests.support.save_and_load import save_and_load

COMPOSITE = "muon + adamw"


def ids(case):
    return "-".join(case)


# From the rules of `SAVED` to every change of them, and for some configs back.
STATE_CASES = [(config, "same", change) for config in CONFIGS for change in CHANGES]
STATE_CASES += [
    (config, change, "same")
    for config in ("torch adamw", "own adamw", COMPOSITE, "muon + lion + sgd")
    for change in CHANGES
    if change != "same"
]
FAST_STATE_CASES = [case for case in STATE_CASES if case[0] == COMPOSITE or case[1:] == ("same", "split")]


@pytest.mark.parametrize(
    ("config", "before", "after"), each_value(STATE_CASES, fast=[*map(ids, FAST_STATE_CASES)], id=ids)
)
def test_each_parameter_gets_its_own_state(config, before, after):
    state_dict, expected = saved_states(config, before)
    assert_distinguishable(expected)
    assert all(expected.values()), "each parameter has a state"
    model = Deep()
    optimizer = build(config, after, model)
    names = [group["name"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state_dict)
    assert equal(states_by_name(model, optimizer), expected)
    assert [group["name"] for group in optimizer.param_groups] == names, "the groups are those of the new config"
    assert_names_are_right(model, optimizer)
    run(model, optimizer, 4, 5)


def assert_distinguishable(states):
    """No buffer of a parameter equals one of another parameter."""
    buffers = [(n, k, v) for n, s in states.items() for k, v in s.items() if isinstance(v, Tensor) and k != "step"]
    for position, (name, key, value) in enumerate(buffers):
        for other_name, other_key, other in buffers[:position]:
            assert name == other_name or not torch.equal(value, other), (name, key, other_name, other_key)


BITWISE_CASES = [(config, change) for config in CONFIGS for change in SAME_VALUES]
FAST_BITWISE_CASES = [case for case in BITWISE_CASES if case[0] == COMPOSITE or case[1] == "split by depth"]


@pytest.mark.parametrize(("config", "change"), each_value(BITWISE_CASES, fast=[*map(ids, FAST_BITWISE_CASES)], id=ids))
def test_training_continues_bitwise_where_no_value_changes(config, change):
    model, optimizer = train_saved(config)
    resumed_model = Deep()
    resumed_model.load_state_dict(model.state_dict())
    resumed = build(config, change, resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    expected = run(model, optimizer, 4, 8)
    assert [equal(*pair) for pair in zip(run(resumed_model, resumed, 4, 8), expected, strict=True)] == [True] * 4
    assert equal(states_by_name(resumed_model, resumed), states_by_name(model, optimizer))


def test_a_checkpoint_of_an_edited_config_can_be_edited_again():
    model, optimizer = train_saved(COMPOSITE)
    expected = states_by_name(model, optimizer)
    for change in ("split", "renamed", "split by depth", "same"):
        resumed = build(COMPOSITE, change, model)
        resumed.load_state_dict(save_and_load(optimizer.state_dict()))
        optimizer = resumed
        assert equal(states_by_name(model, optimizer), expected), change
    uninterrupted_model, uninterrupted = train_saved(COMPOSITE)
    assert equal(run(model, optimizer, 4, 7), run(uninterrupted_model, uninterrupted, 4, 7))


def test_parameters_without_state_stay_without():
    model = Deep()
    optimizer = build_factory(COMPOSITE, SAVED)(model)
    model.backbone[3].weight.requires_grad_(False)
    model.head.requires_grad_(False)
    model.loss().backward()
    optimizer.step()
    resumed_model = Deep()
    resumed = build(COMPOSITE, "split", resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    with_state = {name for name, p in resumed_model.named_parameters() if p in resumed.state}
    assert with_state == set(dict(model.named_parameters())) - {"backbone.3.weight", "head.weight", "head.bias"}


def test_loading_does_not_change_the_state_dicts_it_is_given():
    _, optimizer = train_saved(COMPOSITE)
    scheduler = SchedulerFactory("one_cycle")(optimizer, 60)
    state_dicts = copy.deepcopy([optimizer.state_dict(), scheduler.state_dict()])
    before = copy.deepcopy(state_dicts)
    resumed = build(COMPOSITE, "split", Deep())
    resumed_scheduler = SchedulerFactory("one_cycle")(resumed, 60)
    resumed.load_state_dict(state_dicts[0])
    resumed_scheduler.load_state_dict(state_dicts[1])
    assert equal(state_dicts, before)
