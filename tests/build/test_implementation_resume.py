"""A run that changes between torch's class and ours: which checkpoints load, and that training continues exactly."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, optimizer_info
from lightning_optim.optim import state_keys
from tests.support.cases import every
from tests.support.implementations import (
    ABSOLUTE,
    FAST_OWN_ONLY,
    HEAD,
    OWN_ONLY,
    TOP,
    TORCH_AND_NATIVE,
    case_id,
    directions,
    factory_of,
    flag_names,
    for_head,
    own_only,
    variants,
)
from tests.support.messages import check_message
from tests.support.models import Tiny, model_for, same, train
from tests.support.save_and_load import save_and_load

MODIFIER_KEYS = set(state_keys.MODIFIER_KEYS)


def without_configured(state_dict):
    """The checkpoint as another program saves it: without what was configured."""
    for group in state_dict["param_groups"]:
        del group["configured"]
    return state_dict


def resume(name, first, then, given, resumed_given, *, is_foreign=False):
    """Two models and their optimizers: one trained for 3 steps, and one that has loaded its checkpoint."""
    model, resumed_model = model_for(name), model_for(name)
    optimizer = factory_of(name, first, **given)(model)
    train(model, optimizer, 3)
    resumed = factory_of(name, then, **resumed_given)(resumed_model)
    resumed_model.load_state_dict(model.state_dict())
    state_dict = save_and_load(optimizer.state_dict())
    resumed.load_state_dict(without_configured(state_dict) if is_foreign else state_dict)
    return model, optimizer, resumed_model, resumed


@directions
@variants
def test_training_continues_bitwise_in_the_other_class(name, given, first, then):
    model, optimizer, resumed_model, resumed = resume(name, first, then, given, given)
    assert type(resumed) is not type(optimizer)
    assert same(train(model, optimizer, 5), train(resumed_model, resumed, 5))


def test_auto_continues_in_torch_s_class_what_ours_has_trained():
    model, optimizer, resumed_model, resumed = resume("adam", "own", "auto", {}, {})
    assert type(resumed) is torch.optim.Adam
    assert same(train(model, optimizer, 5), train(resumed_model, resumed, 5))


@pytest.mark.parametrize(
    ("name", "modifier"),
    [("adamw", {"schedule_free": {}}), ("sgd", {"schedule_free": {}}), ("adamw", {"lookahead": {"k": 2}})],
    ids=str,
)
def test_torch_s_class_does_not_carry_along_what_a_modifier_has_stored(name, modifier):
    """A later run with the modifier would continue from it: the weights of long ago, which `eval` has put away."""
    model = model_for(name)
    optimizer = factory_of(name, "auto", **modifier)(model)
    train(model, optimizer, 3)
    optimizer.eval()
    plain = factory_of(name, "auto")(model)
    assert type(plain).__module__.startswith("torch.optim")
    plain.load_state_dict(save_and_load(optimizer.state_dict()))
    train(model, plain, 3)
    trained = [parameter.clone() for parameter in model.parameters()]
    again = factory_of(name, "auto", **modifier)(model)
    again.load_state_dict(save_and_load(plain.state_dict()))
    again.train()
    assert same(trained, list(model.parameters()))
    assert not any(MODIFIER_KEYS & state.keys() for state in plain.state.values())


@directions
@pytest.mark.parametrize("name", every(TORCH_AND_NATIVE, fast=["adam", "adamw", "radam"]))
def test_another_program_s_values_are_taken_but_not_its_execution_flags(name, first, then):
    """As in torch, in the keys of the class that loads it."""
    optimizer = factory_of(name, first, lr=0.01)(model_for(name))
    resumed = OptimizerFactory(name, implementation=then, foreach=True, **{**TOP, "groups": HEAD})(model_for(name))
    keys = [set(group) for group in resumed.param_groups]
    saved = without_configured(optimizer.state_dict())
    before = copy.deepcopy(saved["param_groups"])
    resumed.load_state_dict(saved)
    assert saved["param_groups"] == before
    assert [set(group) for group in resumed.param_groups] == keys
    assert [group["foreach"] for group in resumed.param_groups] == [True, True]
    assert [group["lr"] for group in resumed.param_groups] == [0.01, 0.005]
    assert [group["peak_lr"] for group in resumed.param_groups] == [0.01, 0.005]


@directions
@flag_names
def test_another_program_s_decay_mode_continues_whatever_the_config_says(name, first, then):
    given = {"decoupled_weight_decay": True}
    model, optimizer, resumed_model, resumed = resume(name, first, then, given, {}, is_foreign=True)
    assert same(train(model, optimizer, 3), train(resumed_model, resumed, 3))


@pytest.mark.parametrize("name", every(TORCH_AND_NATIVE, fast=["adam", "adamw"]))
def test_a_checkpoint_of_torch_s_class_has_the_default_decay_mode_in_ours(name):
    *_, resumed = resume(name, "torch", "own", {}, ABSOLUTE, is_foreign=True)
    assert [group["weight_decay_mode"] for group in resumed.param_groups] == [optimizer_info(name).decay] * 2


@own_only
def test_torch_s_class_refuses_a_checkpoint_with_what_it_cannot_do(name, given):
    trained_model, model = Tiny(), Tiny()
    trained = OptimizerFactory(name, implementation="own", **for_head({"weight_decay": 0.1, **given}))(trained_model)
    train(trained_model, trained, 2)
    optimizer = OptimizerFactory(name, implementation="torch", **for_head({"lr_scale": 0.5}))(model)
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    key = min(given.keys() & optimizer_info(name).own_only)
    with pytest.raises(ConfigError) as caught:
        optimizer.load_state_dict(without_configured(trained.state_dict()))
    check_message(caught, key, f"trained with {key}: ", "Type implementation: own")
    assert optimizer.state_dict()["param_groups"] == before
    assert not any(state["step"] for state in optimizer.state.values())


def test_our_class_loads_the_checkpoint_that_torch_s_refuses():
    model, optimizer, resumed_model, resumed = resume("adam", "own", "own", ABSOLUTE, {}, is_foreign=True)
    assert same(train(model, optimizer, 3), train(resumed_model, resumed, 3))


# The state of `amsgrad` does not fit a config without it.
REMOVABLE = [(name, given) for name, given in OWN_ONLY if "amsgrad" not in given]


@pytest.mark.parametrize("then", ["own", "torch"])
@pytest.mark.parametrize(
    ("name", "given"),
    every(REMOVABLE, fast=[case for case in FAST_OWN_ONLY if "amsgrad" not in case], id=case_id),
)
def test_values_removed_from_the_config_end_with_the_load(name, given, then):
    """Unlike in torch: an edited config is meant."""

    def values(groups):
        return [{key: value for key, value in group.items() if key != "params"} for group in groups]

    model = Tiny()
    optimizer = OptimizerFactory(name, implementation="own", **for_head({"weight_decay": 0.1, **given}))(model)
    train(model, optimizer, 2)
    resumed = OptimizerFactory(name, implementation=then, **for_head({"lr_scale": 0.5}))(Tiny())
    configured = values(resumed.param_groups)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert values(resumed.param_groups) == configured
