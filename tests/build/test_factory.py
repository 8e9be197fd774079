"""`OptimizerFactory` as a value: copied, pickled, compared, made from OmegaConf; and what its constructor refuses."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import hydra.errors
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.messages import check_message
from tests.support.models import Tiny
from tests.support.save_and_load import save_and_load

HEAD = {"head": {"params": "head", "lr_scale": 0.5}}
FACTORIES = {
    "adamw": OptimizerFactory("adamw", lr=1e-4, betas=(0.8, 0.9), groups={"x": {"params": ["head"], "frozen": False}}),
    "lbfgs": OptimizerFactory("lbfgs", line_search_fn="strong_wolfe"),
    "own": OptimizerFactory("adam", implementation="own", weight_decay_mode="absolute"),
    "numpy": OptimizerFactory("sgd", lr=np.float64(0.1), groups={"x": {"params": "head", "lr": np.float64(0.2)}}),
    "warmup_cosine": SchedulerFactory("warmup_cosine", warmup_steps=3, final_scale=0.1),
    "sequential": SchedulerFactory(
        "sequential", schedulers=[{"name": "linear"}, {"name": "step", "step_size": 3}], milestones=(5,)
    ),
    "one_cycle_numpy": SchedulerFactory("one_cycle", total_steps=9, pct_start=np.float64(0.5)),
}


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": save_and_load,
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("copy_by", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_factory_is_equal_and_separate(copy_by, factory):
    found = copy_by(factory)
    assert found is not factory
    assert type(found) is type(factory)
    assert vars(found) == vars(factory)
    assert found == factory
    assert hash(found) == hash(factory)


def test_factories_with_other_configs_are_unequal():
    assert OptimizerFactory("adam") != OptimizerFactory("adamw")
    assert OptimizerFactory("adam", lr=0.1) != OptimizerFactory("adam", lr=0.2)
    own = OptimizerFactory("adam", implementation="own")
    assert OptimizerFactory("adam") != own
    assert repr(own) == "OptimizerFactory('adam', implementation='own')"
    assert OptimizerFactory("adam") != SchedulerFactory("noam", warmup_steps=3)
    assert SchedulerFactory("noam", warmup_steps=3) != SchedulerFactory("noam", warmup_steps=4)


@pytest.mark.slow
def test_factories_load_in_a_process_that_only_imports_the_package(run_python, tmp_path):
    file = tmp_path / "factories.pt"
    torch.save([FACTORIES["adamw"], FACTORIES["sequential"]], file)
    code = "import sys, torch, lightning_optim\nprint(torch.load(sys.argv[1], weights_only=True))"
    assert run_python(code, str(file)).strip() == repr([FACTORIES["adamw"], FACTORIES["sequential"]])


def types_in(value):
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {type(value)}.union(*map(types_in, inside))


def test_omegaconf_values_are_converted_to_plain_types():
    config = OmegaConf.create(
        {
            "slow": 0.125,
            "optimizer": {
                "betas": [0.8, 0.9],
                "groups": {"head": {"params": ["head", "${part}"], "lr": "${slow}", "betas": "${optimizer.betas}"}},
            },
            "part": "neck",
        }
    )
    factory = OptimizerFactory("adam", betas=config.optimizer.betas, groups=config.optimizer.groups)
    assert types_in(vars(factory)) <= {dict, list, str, float}
    assert factory.groups == {"head": {"params": ["head", "neck"], "lr": 0.125, "betas": [0.8, 0.9]}}
    inner = OptimizerFactory("adam", groups={"head": config.optimizer.groups.head})
    assert inner.groups == factory.groups
    scheduler = SchedulerFactory("chained", schedulers=OmegaConf.create([{"name": "linear", "total_iters": 3}]))
    assert types_in(vars(scheduler)) <= {dict, list, str, int, type(None)}


def test_a_call_changes_neither_the_factory_nor_the_config_it_was_made_from():
    groups = {"head": {"params": ["head"], "betas": [0.5, 0.6]}, "cold": {"kinds": ["bias"], "frozen": True}}
    given, factory = copy.deepcopy(groups), OptimizerFactory("adam", groups=groups)
    before = copy.deepcopy(vars(factory))
    first, second = factory(Tiny()), factory(Tiny())
    factory.explain(Tiny())
    assert vars(factory) == before
    assert groups == given
    first.param_groups[0]["lr"] = 7.0
    assert second.param_groups[0]["lr"] == 1e-3
    groups["head"]["params"].append("neck")
    assert vars(factory) == before


# Invalid configs

NESTEROV = ["nesterov: true", "momentum > 0", "dampening: 0"]
BETAS = ["a list of 2", "number >= 0 and < 1", "betas: [0.9, 0.999]"]
WRONG = [
    ("adamv", {}, ["name", "'adamv'", "Did you mean 'adam'?", "adamw", "lightning-optim list"]),
    ("AdamW", {}, ["name", "'AdamW'", "Did you mean 'adamw'?"]),
    ("adamw", {"wieght_decay": 0}, ["wieght_decay", "adamw", "Did you mean 'weight_decay'?", "lr, betas, eps"]),
    ("adamw", {"group": {}}, ["group", "adamw", "Did you mean 'groups'?"]),
    (
        "adamw",
        {"momentum": 0.9},
        ["momentum", "adamw", "momentum belongs to ", "madgrad", "left over from a config below?"],
    ),
    (
        "adamw",
        {"groups": {"head": {"params": "head", "wieght_decay": 0}}},
        ["groups.head.wieght_decay", "adamw", "Did you mean 'weight_decay'?"],
    ),
    ("adam", {"betas": [0.9]}, ["betas", "[0.9]", *BETAS]),
    ("adam", {"betas": [0.9, 0.99, 0.999]}, ["betas", "[0.9, 0.99, 0.999]", *BETAS]),
    ("adam", {"betas": 0.9}, ["betas", "0.9", *BETAS]),
    ("adam", {"betas": [0.9, 1]}, ["betas", "[0.9, 1]", *BETAS]),
    ("adam", {"groups": {"head": {"params": "head", "betas": [0.9]}}}, ["groups.head.betas", "[0.9]", *BETAS]),
    ("adam", {"amsgrad": "yes"}, ["amsgrad", "'yes'", "true or false"]),
    ("muon", {"adjust_lr_fn": "orignal"}, ["adjust_lr_fn", "'orignal'", "original, match_rms_adamw"]),
    ("lbfgs", {"max_iter": 2.5}, ["max_iter", "2.5", "integer >= 1", "max_iter: 20"]),
    ("sgd", {"nesterov": True}, ["sgd", *NESTEROV]),
    ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ["sgd", *NESTEROV]),
    ("adamw", {"fused": True, "foreach": True}, ["adamw", "fused: true", "foreach: true"]),
    ("adamw", {"fused": True, "differentiable": True}, ["adamw", "fused: true", "differentiable: true"]),
    ("adamw", {"params": None}, ["params", "_partial_: true is left over", "Type _partial_: false"]),
]


@pytest.mark.parametrize(("name", "given", "parts"), WRONG, ids=[f"{name} {given}" for name, given, _ in WRONG])
def test_an_invalid_config_is_refused_when_the_factory_is_constructed(name, given, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, **given)
    check_message(caught, *parts)


@pytest.mark.parametrize("lr", ["abc", -1, math.nan, math.inf, True, None, [1], {"a": 1}], ids=repr)
@pytest.mark.parametrize("key", ["lr", "groups.head.lr"])
def test_an_invalid_lr_is_refused_by_its_key(key, lr):
    given = {"lr": lr} if key == "lr" else {"groups": {"head": {"params": "head", "lr": lr}}}
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", **given)
    check_message(caught, key, repr(lr), "a finite number >= 0", "lr: 0.001")


WRONG_WITH_MODEL = [
    (
        "adamw",
        {"head": {"params": "haed", "lr": 0.1}},
        ["groups.head", "'haed'", "'head'", "groups.head.allow_empty: true"],
    ),
    ("lbfgs", HEAD, ["groups", "lbfgs", "one param group", "default, head", "groups: null"]),
    ("muon", None, ["name", "muon", "takes matrices", "backbone.bias", "[8]", "name: adamw"]),
    ("sgd", {"head": {"params": "head", "nesterov": True}}, ["groups.head", *NESTEROV, "head.weight, head.bias"]),
]


@pytest.mark.parametrize(("name", "groups", "parts"), WRONG_WITH_MODEL, ids=[name for name, *_ in WRONG_WITH_MODEL])
def test_a_config_that_does_not_fit_the_model_is_refused_when_the_factory_is_called(name, groups, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, groups=groups)(Tiny())
    check_message(caught, *parts)


def test_hydra_shows_the_plain_message():
    config = {"_target_": "lightning_optim.OptimizerFactory", "name": "adamw", "lr": "abc"}
    with pytest.raises(hydra.errors.InstantiationException) as caught:
        instantiate(config)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert str(caught.value.__cause__) in str(caught.value)
    assert "ConfigError(" not in str(caught.value)


def test_a_leftover_partial_is_named_when_params_are_passed_by_keyword():
    partial = instantiate({"_target_": "lightning_optim.OptimizerFactory", "_partial_": True, "name": "adamw"})
    with pytest.raises(ConfigError, match=r"^params: .* Type _partial_: false$"):
        partial(params=Tiny().parameters())


@pytest.mark.parametrize(
    "factory",
    [partial(OptimizerFactory, name="adamw"), partial(SchedulerFactory, name="constant")],
    ids=["optimizer", "scheduler"],
)
def test_a_leftover_partial_is_named_when_params_are_passed_by_position(factory):
    with pytest.raises(ConfigError, match="a _partial_: true is left over in the config. Type _partial_: false"):
        factory([torch.zeros(2)])
