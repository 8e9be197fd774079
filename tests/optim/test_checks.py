"""Hyperparameters of an optimizer of ours: what is accepted, and what is refused with which message."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf import OmegaConf

from lightning_optim import ConfigError, OptimizerFactory, WeightDecay, optim
from lightning_optim.core.hyperparameters import Number
from tests.support.example_rules import Momentum
from tests.support.messages import check_message
from tests.support.optimizer_runs import new_grads, new_params, set_grads
from tests.support.save_and_load import save_and_load


@pytest.mark.parametrize(
    ("make", "key", "parts"),
    [
        (lambda: Momentum(new_params(), momentm=0.5), "momentm", ("Did you mean 'momentum'?",)),
        (lambda: Momentum(new_params(), foreach=True), "param_groups[0].foreach", ("foreach: null",)),
        (lambda: Momentum(new_params(), momentum=-1.0), "momentum", (">= 0",)),
        (lambda: Momentum(new_params(), lr=-1.0), "lr", (">= 0",)),
        (lambda: Momentum(new_params(), weight_decay_mode="update"), "weight_decay_mode", ("decoupled",)),
        (lambda: Momentum(new_params(), weight_decay_mod="l1"), "weight_decay_mod", ("'weight_decay_mode'",)),
        (lambda: Momentum(new_params(), fused=True), "param_groups[0].fused", ("fused: null",)),
        (
            lambda: Momentum([{"params": new_params(), "momentm": 0.5, "name": "head"}]),
            "head.momentm",
            ("Did you mean 'momentum'?",),
        ),
        (lambda: optim.Adam(new_params(), 0.1, capturable=True), "capturable", ("implementation: torch",)),
        (
            lambda: optim.Adam(new_params(), decoupled_weight_decay=True, weight_decay_mode="l1"),
            "decoupled_weight_decay",
            ("Remove decoupled_weight_decay",),
        ),
        (lambda: optim.AMSGrad(new_params(), amsgrad=False), "amsgrad", ("Remove it",)),
        (lambda: optim.AdaBound(new_params(), lr=0.0), "param_groups[0].peak_lr", ("got 0", "the rule divides")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_hyperparameters_are_refused_with_advice(make, key, parts):
    with pytest.raises(ConfigError) as caught:
        make()
    check_message(caught, key, *parts)


def test_bounds_that_a_user_declares_are_checked_in_groups():
    class Bounded(Momentum):
        hyperparameters = {"momentum": Number(default=0.9, low=0.5, high=1)}

    with pytest.raises(ConfigError, match=r"^param_groups\[0\]\.momentum: .*>= 0.5 and <= 1"):
        Bounded([{"params": new_params(), "momentum": 0.25}])


def test_torchs_keys_are_accepted_where_they_mean_the_same():
    params = new_params()
    theirs = torch.optim.Adam(params, lr=0.25, decoupled_weight_decay=True, amsgrad=True)
    group = {key: value for key, value in theirs.param_groups[0].items() if key != "fused"}
    ours = optim.Adam([group])
    assert ours.param_groups[0]["weight_decay_mode"] == "decoupled"
    assert ours.param_groups[0]["amsgrad"] is True
    assert optim.Adam(params, decoupled_weight_decay=True).defaults["weight_decay_mode"] == "decoupled"
    assert optim.Adam(params, decoupled_weight_decay=False).defaults["weight_decay_mode"] == "l2"
    given = {"decoupled_weight_decay": False, "weight_decay_mode": "l1"}
    assert optim.Adam(params, **given).defaults["weight_decay_mode"] == "l1"


def test_decoupled_weight_decay_false_does_not_conflict_with_a_weight_decay_policy():
    decay = WeightDecay(0.5, "relative")
    assert optim.Adam(new_params(), weight_decay=decay, decoupled_weight_decay=False).defaults["weight_decay_mode"] == (
        "relative"
    )
    with pytest.raises(ConfigError, match="decoupled_weight_decay: true"):
        optim.Adam(new_params(), weight_decay_mode="relative", decoupled_weight_decay=True)


def test_numbers_of_numpy_and_omegaconf_become_pythons():
    given = {"lr": np.float32(0.5), "betas": OmegaConf.create([0.5, 0.75]), "weight_decay": np.int64(1)}
    for optimizer in (optim.Lion(new_params(), **given), optim.Lion([{"params": new_params(), **given}])):
        group = optimizer.param_groups[0]
        assert [group[key] for key in given] == [0.5, (0.5, 0.75), 1.0]
        assert {type(value) for value in (group["lr"], group["weight_decay"], *group["betas"])} == {float}


@pytest.mark.parametrize("peak", ["abc", -1.0, None])
def test_a_wrong_peak_lr_is_refused(peak):
    with pytest.raises(ConfigError, match=r"^param_groups\[0\]\.peak_lr: "):
        optim.Lion([{"params": new_params(), "peak_lr": peak}])


def test_a_param_group_that_is_no_dict_is_refused():
    with pytest.raises(TypeError, match="a param group is a dict, not Parameter"):
        optim.Lion([{"params": new_params()[:1]}, new_params()[0]])


def test_the_factory_takes_a_weight_decay_policy():
    given = WeightDecay(0.5, "absolute", cautious=True)
    factory = OptimizerFactory("lion", weight_decay=given, groups={"head": {"params": "1", "weight_decay": given}})
    assert factory == OptimizerFactory("lion", **given.keys(), groups={"head": {"params": "1", **given.keys()}})
    assert type(pickle.loads(pickle.dumps(factory))) is OptimizerFactory


def test_lightnings_command_line_takes_a_member():
    parser = LightningArgumentParser()
    parser.add_optimizer_args(optim.Lion)
    given = parser.parse_args(
        ["--optimizer.lr=0.5", "--optimizer.betas=[0.5,0.75]", "--optimizer.weight_decay_mode=l1"]
    )
    assert (given.optimizer.lr, given.optimizer.betas, given.optimizer.weight_decay_mode) == (0.5, (0.5, 0.75), "l1")


def test_a_value_that_all_groups_share_is_refused_in_a_group_and_saved():
    params = new_params()
    for key, value in {"d_coef": 100.0, "d0": 1e-3, "growth_rate": 2.0}.items():
        with pytest.raises(ConfigError, match=rf"param_groups\[1\]\.{key}: got {value}, .* Type {key} only at the top"):
            optim.Prodigy([{"params": params[:1]}, {"params": params[1:], key: value}])
    optimizer = optim.Prodigy([{"params": params[:2]}, {"params": params[2:]}], d0=1e-3, d_coef=100.0)
    set_grads(params, [torch.ones_like(p) for p in params])
    for _ in range(3):
        optimizer.step()
    other = optim.Prodigy([{"params": params[:2]}, {"params": params[2:]}])
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    before = [p.detach().clone() for p in params]
    optimizer.step()
    ours = [p.detach().clone() for p in params]
    for p, b in zip(params, before, strict=True):
        p.data.copy_(b)
    other.step()
    assert all(torch.equal(p, o) for p, o in zip(params, ours, strict=True))
    assert other.state[params[0]]["d"] == optimizer.state[params[0]]["d"]


# Keys of a param group


def test_a_group_may_have_the_keys_that_schedulers_add():
    model = new_params()
    optimizer = optim.Lion(model, lr=torch.tensor(0.1))
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3)
    torch.optim.lr_scheduler.CyclicLR(optim.Lion(new_params()), 0.1, 0.2)
    group = {**optimizer.param_groups[0], "swa_lr": 0.1, "params": new_params()}
    assert {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"} <= set(group)
    assert optim.Lion([group]).param_groups[0]["lr"] is group["lr"]


def test_a_groups_decay_mode_null_is_the_optimizers():
    optimizer = optim.Adam([{"params": new_params(), "weight_decay_mode": None}], weight_decay_mode="absolute")
    assert optimizer.param_groups[0]["weight_decay_mode"] == "absolute"


def test_a_group_may_have_its_names_under_param_names():
    params = new_params()
    names = [f"layer.{i}" for i in range(len(params))]
    optimizer = optim.Lion([{"params": params, "param_names": names}])
    assert optimizer.param_groups[0]["param_names"] == names
    set_grads(params, new_grads()[1])
    optimizer.step()
