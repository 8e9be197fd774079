"""A factory as a caller passes it: the object, LightningCLI's mapping of it, or something that is refused."""

from __future__ import annotations

from functools import partial

import pytest

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from lightning_optim.build.read_factory import read_factory
from tests.support.messages import check_message

RULES = {"head": {"params": "head", "lr_scale": 10}}
FROM_CLI = {
    "class_path": "lightning_optim.OptimizerFactory",
    "init_args": {"name": "adamw", "groups": RULES, "implementation": "auto"},
    "dict_kwargs": {"lr": 3e-4, "groups.head.lr_scale": 5},
}


def test_a_factory_is_taken_as_it_is():
    factory = OptimizerFactory("adamw")
    assert read_factory("optimizer", factory, OptimizerFactory) is factory


def test_the_mapping_of_lightning_cli_is_the_factory_that_it_describes():
    factory = read_factory("optimizer", FROM_CLI, OptimizerFactory)
    assert factory == OptimizerFactory("adamw", lr=3e-4, groups={"head": {"params": "head", "lr_scale": 5}})
    assert RULES["head"]["lr_scale"] == 10, "the caller's mapping is left alone"
    step = {"class_path": "lightning_optim.SchedulerFactory", "init_args": {"name": "constant"}}
    assert read_factory("scheduler", step, SchedulerFactory) == SchedulerFactory("constant")


REFUSED = {
    "leftover partial": (partial(OptimizerFactory, name="adamw"), "optimizer", "Type _partial_: false"),
    "mapping of Hydra": ({"_target_": "lightning_optim.OptimizerFactory"}, "optimizer", "hydra.utils.instantiate(cfg)"),
    "something else": (3, "optimizer", "type _target_: lightning_optim.OptimizerFactory"),
    "another class of ours": (
        SchedulerFactory("constant"),
        "optimizer",
        "got a SchedulerFactory, not a OptimizerFactory",
    ),
    "mapping of another class": (
        {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
        "optimizer.class_path",
        "got torch.optim.AdamW. Type class_path: lightning_optim.OptimizerFactory",
    ),
    "mapping with an unknown key": (FROM_CLI | {"init_arg": {}}, "optimizer.init_arg", "Did you mean 'init_args'"),
}


@pytest.mark.parametrize(("factory", "key", "part"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused(factory, key, part):
    with pytest.raises(ConfigError) as caught:
        read_factory("optimizer", factory, OptimizerFactory)
    check_message(caught, key, part)


def test_the_class_path_is_never_imported(monkeypatch):
    def refuse(name, *arguments, **keywords):
        raise AssertionError(f"{name} is imported")

    monkeypatch.setattr("builtins.__import__", refuse)
    with pytest.raises(ConfigError, match="class_path: got antigravity.Adam"):
        read_factory("optimizer", {"class_path": "antigravity.Adam"}, OptimizerFactory)


# One key of one rule.

HEAD, STEPS = {"params": "head", "schedule": {"name": "constant"}}, "groups.head.schedule.factor"


@pytest.mark.parametrize(
    ("dotted", "groups"),
    [
        ({"groups.head.lr_scale": 5}, {"head": {**HEAD, "lr_scale": 5}}),
        ({STEPS: 0.5}, {"head": {"params": "head", "schedule": {"name": "constant", "factor": 0.5}}}),
        ({"groups.nd": {"kinds": "bias", "lr": 1}}, {"head": HEAD, "nd": {"kinds": "bias", "lr": 1}}),
        ({"groups.nd": {"kinds": "bias"}, "groups.nd.lr": 1}, {"head": HEAD, "nd": {"kinds": "bias", "lr": 1}}),
        ({"groups.head": None}, {"head": None}),
    ],
    ids=["changed", "nested", "rule added", "rule added, then changed", "rule removed"],
)
def test_a_dotted_key_changes_one_key_of_one_rule(dotted, groups):
    assert OptimizerFactory("adamw", groups={"head": HEAD}, **dotted).groups == groups


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("groups.hed.lr", r"groups.hed.lr: there is no rule or key 'hed'. Did you mean 'head'\? Available: head"),
        ("groups.head.params.x", r"groups.head.params.x: params is 'head', which has no keys"),
        ("groups.head.lr_scal", r"groups.head.lr_scal: .*Did you mean 'lr_scale'"),
    ],
)
def test_a_misspelt_dotted_key_is_refused(dotted, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory("adamw", groups={"head": HEAD}, **{dotted: 1})
