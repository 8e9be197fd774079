"""Mistakes in a config are refused by Hydra or at instantiation, with the key, what is allowed and what to type."""

from __future__ import annotations

import re

import pytest
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from torch.nn import Linear
from torch.optim import SGD

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.cases import every

CONFIG = """
defaults:
  - optimizer: adamw_groups
  - scheduler: cosine_annealing
  - unfreeze: head_then_backbone
  - monitor: default
"""


@pytest.fixture
def app(write_app):
    return write_app({"config.yaml": CONFIG})


# Refused by Hydra.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("optimizer.weigth_decay=0.1", r"use \+optimizer\.weigth_decay=0\.1", id="unknown key"),
        pytest.param("optimizer.groups.head.lr=0.1", r"optimizer\.groups\.head", id="missing rule"),
        pytest.param("optimizer=adamv", r"(?s)Could not find 'optimizer/adamv'.*adamw_groups", id="unknown option"),
    ],
)
def test_hydra_refuses_unknown_keys_and_options(override, message, app):
    with pytest.raises(HydraException, match=message):
        app.compose(override)


# Refused by our classes.

MISTAKES = {
    "unknown key": ("optimizer", "+optimizer.weigth_decay=0.1", r"weigth_decay: .*Did you mean 'weight_decay'\?"),
    "key of another algorithm": ("optimizer", "+optimizer.momentum=0.9", r"momentum: .*left over"),
    "unknown algorithm": ("optimizer", "optimizer.name=adamww", r"name: .*'adamww'.*Did you mean 'adamw'\?"),
    "lr that is text": ("optimizer", "optimizer.lr=abc", r"lr: got 'abc'.*Type for example lr: 0\.001"),
    "lr that is a fraction": ("optimizer", "optimizer.lr=1/2", r"lr: got '1/2'.*a finite number >= 0"),
    "lr below zero": ("optimizer", "optimizer.lr=-1", r"lr: got -1.*a finite number >= 0"),
    "lr that is nan": ("optimizer", "optimizer.lr=nan", r"lr: got nan.*a finite number >= 0"),
    "lr that is inf": ("optimizer", "optimizer.lr=inf", r"lr: got inf.*a finite number >= 0"),
    "lr that is null": ("optimizer", "optimizer.lr=null", r"lr: got None.*a finite number >= 0"),
    "lr that is true": ("optimizer", "optimizer.lr=true", r"lr: got True.*a finite number >= 0"),
    "too many betas": ("optimizer", "optimizer.betas=[0.9,0.99,0.999]", r"betas: got .*a list of 2"),
    "unknown key of a rule": (
        "optimizer",
        "+optimizer.groups.no_decay.lr_scal=0.1",
        r"groups\.no_decay\.lr_scal: .*Did you mean 'lr_scale'\?",
    ),
    "value of a rule": (
        "optimizer",
        "optimizer.groups.no_decay.weight_decay=abc",
        r"groups\.no_decay\.weight_decay: got 'abc'",
    ),
    "kind of a rule": (
        "optimizer",
        "optimizer.groups.no_decay.kinds=[biases]",
        r"groups\.no_decay\.kinds: .*'biases'.* Did you mean 'bias'\?",
    ),
    "rule without a selector": (
        "optimizer",
        "+optimizer.groups.head={lr: 0.1}",
        r"groups\.head: .*params, classes, kinds",
    ),
    "rule that is not a mapping": (
        "optimizer",
        "+optimizer.groups.head=0.1",
        r"groups\.head: got 0\.1\. A rule is a map",
    ),
    "reserved rule name": ("optimizer", "+optimizer.groups.all={params: x, lr: 1}", r"groups\.all: "),
    "unknown schedule": ("scheduler", "scheduler.name=cosine_anealing", r"Did you mean 'cosine_annealing'\?"),
    "unknown key of a schedule": ("scheduler", "+scheduler.eta_mim=0.1", r"eta_mim: .*Did you mean 'eta_min'\?"),
    "value of a schedule": ("scheduler", "scheduler.warmup_steps=-1", r"warmup_steps: got -1"),
    "interval of a schedule": ("scheduler", "scheduler.interval=batch", r"interval: .*'batch'.*step, epoch"),
    "max_lr of a schedule": ("scheduler", "+scheduler.max_lr=0.1", r"max_lr: not accepted"),
    "unknown key of a stage": (
        "unfreeze",
        "+unfreeze.stages.backbone.lr_scal=0.1",
        r"stages\.backbone\.lr_scal: .*Did you mean 'lr_scale'\?",
    ),
    "trigger of a stage": (
        "unfreeze",
        "+unfreeze.stages.mid={params: mid, at: {epochs: 1}}",
        r"stages\.mid\.at\.epochs: .*Did you mean 'epoch'\?",
    ),
    "two triggers of a stage": ("unfreeze", "+unfreeze.stages.backbone.at.step=5", r"stages\.backbone\.at: got "),
    "no first stage": (
        "unfreeze",
        "+unfreeze.stages.head.at={epoch: 1}",
        r"stages: no stage is trained from the start",
    ),
    "value of the monitor": ("monitor", "monitor.every_n_steps=0", r"every_n_steps: got 0"),
}


FAST_MISTAKES = ("lr that is text", "value of a rule", "unknown schedule", "trigger of a stage", "value of the monitor")


def read_error(error: Exception) -> tuple[BaseException | None, list[str]]:
    """`(cause, lines of the message)`: Hydra 1.3 wraps the error, Hydra 1.4 adds a note to it."""
    if isinstance(error, InstantiationException):
        return error.__cause__, str(error).splitlines()
    return error, [str(error), *error.__notes__]


@pytest.mark.parametrize("mistake", every(MISTAKES, fast=FAST_MISTAKES))
def test_a_config_error_is_the_cause_and_its_message_is_plain(mistake, app):
    node, override, message = MISTAKES[mistake]
    job = app.compose(override)
    with pytest.raises((InstantiationException, ConfigError)) as caught:
        instantiate(job[node])
    cause, lines = read_error(caught.value)
    assert type(cause) is ConfigError
    assert re.search(message, str(cause))
    assert lines[-2:] == [str(cause), f"full_key: {node}"], "plain, without ConfigError('...') around it"


# The idiom of Hydra's users for torch's classes: instantiate(cfg, params=...).

TYPE = r"Type hydra\.utils\.instantiate\(cfg\)\((module|optimizer)\)"
CALLS = {
    "params": ("optimizer", lambda cfg, net: instantiate(cfg, params=net.parameters()), "params"),
    "params and lr": ("optimizer", lambda cfg, net: instantiate(cfg, lr=0.1, params=net.parameters()), "params"),
    "params that are a module": ("optimizer", lambda cfg, net: instantiate(cfg, params=net), "params"),
    "param groups": ("optimizer", lambda cfg, net: instantiate(cfg, params=[{"params": [net.weight]}]), "params"),
    "by position": ("optimizer", lambda cfg, net: instantiate(cfg, net.parameters()), "name"),
    "a module by position": ("optimizer", lambda cfg, net: instantiate(cfg, net), "name"),
    "under another name": (
        "optimizer",
        lambda cfg, net: instantiate(cfg, model_params=net.parameters()),
        "model_params",
    ),
    "a module under another name": ("optimizer", lambda cfg, net: instantiate(cfg, module=net), "module"),
    "an optimizer": ("scheduler", lambda cfg, net: instantiate(cfg, optimizer=SGD(net.parameters())), "optimizer"),
    "an optimizer by position": ("scheduler", lambda cfg, net: instantiate(cfg, SGD(net.parameters())), "name"),
}
FAST_CALLS = ("params", "by position", "under another name", "a module under another name", "an optimizer")


@pytest.mark.parametrize("case", every(CALLS, fast=FAST_CALLS))
def test_what_belongs_into_the_call_is_refused_with_the_call_to_type(case, app):
    node, call, key = CALLS[case]
    with pytest.raises((InstantiationException, ConfigError)) as caught:
        call(app.compose()[node], Linear(2, 2))
    cause, _ = read_error(caught.value)
    assert re.match(rf"{key}: .*{TYPE}", str(cause))


def test_param_groups_in_the_call_are_refused_with_the_rule_to_type(app):
    net = Linear(2, 2)
    with pytest.raises(ConfigError, match=r"^params: it contains a dict\. .*groups: \{.*hydra\.utils\.inst"):
        instantiate(app.compose().optimizer)([{"params": [net.weight], "weight_decay": 0.0}])


@pytest.mark.parametrize(("cls", "argument"), [(OptimizerFactory, "module"), (SchedulerFactory, "optimizer")])
def test_a_factory_that_is_constructed_like_the_class_of_torch_says_how(cls, argument):
    net = Linear(2, 2)
    first = net.parameters() if cls is OptimizerFactory else SGD(net.parameters())
    with pytest.raises(ConfigError, match=rf"^name: got a \w+\. .*Type {cls.__name__}\('\w+', \.\.\.\)\({argument}\)$"):
        cls(first, lr=0.1)
    with pytest.raises(ConfigError, match=r"^name: given twice: 'adam' and 'sgd'\. Remove one of them$"):
        cls("adam", name="sgd")


# A `_partial_: true` left over from a config below.


@pytest.mark.parametrize(
    ("node", "call"),
    [
        pytest.param("optimizer", lambda partial, _: partial(params=[]), id="optimizer(params=...)"),
        pytest.param("optimizer", lambda partial, net: configure_optimizers(net, partial), id="configure_optimizers"),
        pytest.param("scheduler", lambda partial, _: partial(optimizer=None), id="scheduler(optimizer=...)"),
        pytest.param("optimizer", lambda partial, _: partial([]), id="optimizer(...)"),
        pytest.param("scheduler", lambda partial, _: partial(None), id="scheduler(...)"),
    ],
)
def test_a_leftover_partial_is_refused_when_it_is_called(node, call, app):
    partial = instantiate(app.compose(f"{node}._partial_=true")[node])
    with pytest.raises(ConfigError, match="Type _partial_: false"):
        call(partial, LightningModule())
