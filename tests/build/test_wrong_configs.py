"""Common mistakes in configs: each is refused by its key, with the nearest name or the allowed values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.cases import every
from tests.support.messages import check_message, check_refusals
from tests.support.models import Net

HEAD = {"params": "head"}
LAYERS = {"layers": "backbone.layer.{i}"}
NUMBER = "a finite number >= 0"
Case = tuple[Callable[[], Any], str, list[str]]


def top(key: str, *parts: str, name: Any = "adamw", **given: Any) -> Case:
    """A mistake at the top level, found when the factory is constructed."""
    return lambda: OptimizerFactory(name, **given), key, list(parts)


def rule(key: str, *parts: str, name: str = "adamw", **given: Any) -> Case:
    """A mistake in the rule `head`, found without the model."""
    return lambda: OptimizerFactory(name, groups={"head": given}), f"groups.head{key}", list(parts)


def groups(key: str, *parts: str, groups: Any, name: str = "adamw", **given: Any) -> Case:
    """A mistake in the rules, found without the model."""
    return lambda: OptimizerFactory(name, groups=groups, **given), key, list(parts)


def built(key: str, *parts: str, params: Callable[[], Any] = Net, name: str = "adamw", **given: Any) -> Case:
    """A mistake that needs the model: found when the factory is called, and not before."""

    def build() -> None:
        try:
            factory = OptimizerFactory(name, **given)
        except ConfigError as error:
            raise AssertionError("refused too early") from error
        factory(params())

    return build, key, list(parts)


def schedule(key: str, *parts: str, name: str, **given: Any) -> Case:
    """A mistake in a schedule, found when its factory is constructed."""
    return lambda: SchedulerFactory(name, **given), key, list(parts)


def scheduled(key: str, *parts: str, name: str, **given: Any) -> Case:
    """A mistake in a schedule that needs the optimizer: found when the factory is called."""
    factory = SchedulerFactory(name, **given)
    return lambda: factory(OptimizerFactory("sgd", lr=0.1)(Net())), key, list(parts)


def omegaconf(config: dict[str, Any], path: str = "") -> Any:
    node = OmegaConf.create(config)
    return OmegaConf.select(node, path) if path else node


def nested() -> nn.Module:
    inner = nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(2, 2)])})
    return nn.ModuleDict({"layer": nn.ModuleList([inner])})


def used_up() -> Any:
    parameters = Net().parameters()
    list(parameters)
    return parameters


NOT_A_RULE = "A rule is a mapping, for example head: {params: backbone, lr_scale: 0.1}"
BELONGS = ["a rule", "groups: {"]

WRONG: dict[str, Case] = {
    # Name and implementation
    "name misspelt": top("name", "'adammw'", "Did you mean 'adamw'?", "lightning-optim list", name="adammw"),
    "name with a class's path": top("name", "'torch.optim.AdamW'", "Did you mean 'adamw'?", name="torch.optim.AdamW"),
    "name null": top("name", "None", "Available: adabelief", name=None),
    "name a list": top("name", "['adamw']", "adamw", name=["adamw"]),
    "name a block": top("name", "{'name': 'adamw'}", "Available: adabelief", name={"name": "adamw"}),
    "no name": (lambda: OptimizerFactory(lr=0.1), "name", ["adamw"]),
    "implementation misspelt": top(
        "implementation", "'torhc'", "Did you mean 'torch'?", "auto, torch, own", implementation="torhc"
    ),
    "implementation that does not exist": top(
        "implementation", "no adafactor of our own", "implementation: auto", name="adafactor", implementation="own"
    ),
    # Keys at the top level
    "key misspelt": top("weigth_decay", "Did you mean 'weight_decay'?", "lr, betas, eps", weigth_decay=0.1),
    "key in another case": top("LR", "Did you mean 'lr'?", LR=0.1),
    "key of another library": top("beta1", "Did you mean 'betas'?", beta1=0.9),
    "key of another algorithm": top("momentum", "momentum belongs to ", "madgrad", "left over from", momentum=0.9),
    "key of lbfgs": top("max_iter", "belongs to lbfgs", "left over from a config below?", max_iter=20),
    "groups misspelt": top("group", "Did you mean 'groups'?", group={"head": {**HEAD, "lr": 1}}),
    "groups as torch calls them": top("param_groups", "Did you mean 'groups'?", param_groups=[HEAD]),
    "optimizer at the top": top("optimizer", *BELONGS, optimizer="muon"),
    "params at the top": top("params", *BELONGS, params="head"),
    "params a list at the top": top("params", *BELONGS, params=["head", "neck"]),
    "kinds at the top": top("kinds", *BELONGS, kinds=["bias", "norm"]),
    "layers at the top": top("layers", *BELONGS, layers="backbone.layer.{i}"),
    "lr_scale at the top": top("lr_scale", *BELONGS, lr_scale=0.1),
    "layer_decay at the top": top("layer_decay", *BELONGS, layer_decay=0.75),
    "frozen at the top": top("frozen", *BELONGS, frozen=True),
    "schedule at the top": top("schedule", *BELONGS, schedule="constant"),
    "partial left over": top(
        "params", "_partial_: true is left over", "Type _partial_: false", params=[nn.Linear(2, 2)]
    ),
    # Values at the top level
    "lr text": top("lr", "'abc'", NUMBER, "lr: 0.001", lr="abc"),
    "lr a fraction": top("lr", "'1/2'", NUMBER, "lr: 0.001", lr="1/2"),
    "lr nan": top("lr", "nan", NUMBER, "lr: 0.001", lr=float("nan")),
    "lr true": top("lr", "True", NUMBER, "lr: 0.001", lr=True),
    "lr negative": top("lr", "-0.1", NUMBER, "lr: 0.001", lr=-0.1),
    "lr still missing": top("lr", "'???'", NUMBER, "lr: 0.001", lr="???"),
    "lr a list": top("lr", "[0.1, 0.01]", NUMBER, "lr: 0.001", lr=[0.1, 0.01]),
    "betas of one number": top("betas", "[0.9]", "a list of 2", "betas: [0.9, 0.999]", betas=[0.9]),
    "betas a number": top("betas", "0.95", "a list of 2", "betas: [0.9, 0.999]", betas=0.95),
    "betas out of bounds": top("betas", "[0.9, 1.0]", ">= 0 and < 1", "betas: [0.9, 0.999]", betas=[0.9, 1.0]),
    "eps negative": top("eps", "-1e-08", NUMBER, "eps: 1.0e-08", eps=-1e-8),
    "weight_decay text": top("weight_decay", "'1e-2'", NUMBER, "weight_decay: 1.0e-2", weight_decay="1e-2"),
    "amsgrad a number": top("amsgrad", "1", "true or false", "amsgrad: false", amsgrad=1),
    "mode misspelt": top(
        "weight_decay_mode", "'decoupeld'", "Did you mean 'decoupled'?", weight_decay_mode="decoupeld"
    ),
    "incompatible values": top("sgd", "momentum > 0 and dampening: 0", name="sgd", nesterov=True),
    # OmegaConf
    "rule's value still missing": groups(
        "groups.head.lr", "Give it a value", groups=omegaconf({"head": {**HEAD, "lr": "???"}})
    ),
    "rule's interpolation to nowhere": groups(
        "groups.head.lr", "'base_lr'", groups=omegaconf({"head": {**HEAD, "lr": "${base_lr}"}})
    ),
    "interpolation to nowhere in an app's config": groups(
        "groups.head.weight_decay",
        "'base_decay'",
        groups=omegaconf(
            {"model": {"optimizer": {"groups": {"head": {**HEAD, "weight_decay": "${base_decay}"}}}}},
            "model.optimizer.groups",
        ),
    ),
    "interpolation by an unknown resolver": groups(
        "groups.head.lr_scale", "mul", groups=omegaconf({"head": {**HEAD, "lr_scale": "${mul:2,3}"}})
    ),
    "interpolation to nowhere in a list": (
        lambda: OptimizerFactory("adam", betas=omegaconf({"betas": [0.9, "${beta2}"]}).betas),
        "betas[1]",
        ["'beta2'"],
    ),
    # The value of groups
    "groups a list": groups(
        "groups", "[{'params': 'head', 'lr': 1}]", "groups: {no_decay: {", groups=[{**HEAD, "lr": 1}]
    ),
    "groups a name": groups("groups", "'no_decay'", "groups: {no_decay: {", groups="no_decay"),
    "rule a number": groups("groups.head", "0.1", NOT_A_RULE, groups={"head": 0.1}),
    "rule a name": groups("groups.head", "'muon'", NOT_A_RULE, groups={"head": "muon"}),
    "rule false": groups("groups.head", "False", NOT_A_RULE, groups={"head": False}),
    "groups in groups": groups(
        "groups.groups", "params, classes, kinds", groups={"groups": {"head": {**HEAD, "lr": 1}}}
    ),
    "rule named all": groups("groups.all", "'all'", "all_params", groups={"all": {"params": "*", "lr": 1}}),
    "rule named default": groups(
        "groups.default", "'default'", "default_params", groups={"default": {**HEAD, "lr": 1}}
    ),
    "rule named by a path": groups(
        "groups.head.bias", "'head.bias'", "letters, digits, _ and -", groups={"head.bias": {**HEAD, "lr": 1}}
    ),
    "rule named by a number": groups("groups.0", "'0'", "letters, digits, _ and -", groups={0: {**HEAD, "lr": 1}}),
    # Keys of a rule
    "lr_mult": rule(".lr_mult", "Did you mean 'lr_scale'?", "params, classes, kinds", **HEAD, lr_mult=0.1),
    "weight_decay_mult": rule(
        ".weight_decay_mult", "Did you mean 'weight_decay_scale'?", **HEAD, weight_decay_mult=0.1
    ),
    "lr_decay": rule(".lr_decay", "Did you mean 'layer_decay'?", **LAYERS, lr_decay=0.75),
    "freeze": rule(".freeze", "Did you mean 'frozen'?", **HEAD, freeze=True),
    "scheduler in a rule": rule(".scheduler", "Did you mean 'schedule'?", **HEAD, scheduler="constant"),
    "key of a stage": rule(".at", "'at'", "Available: params", **HEAD, lr=1, at={"epoch": 1}),
    "fused in a rule": rule(".fused", "whole optimizer", "to the top level: fused: true", **HEAD, fused=True),
    "fused with two values": groups(
        "groups.b.fused",
        "false",
        "groups.a.fused: true",
        "Set it in one of them",
        groups={
            "a": {**HEAD, "optimizer": "sgd", "fused": True},
            "b": {"params": "embed", "optimizer": "sgd", "fused": False},
        },
    ),
    "only selector misspelt": rule("", "Did you mean 'params'?", "params, classes, kinds, layers", param="head", lr=1),
    "classes misspelt": rule("", "Did you mean 'classes'?", "params, classes, kinds, layers", clases="Linear", lr=1),
    "second selector misspelt": rule(".kind", "Did you mean 'kinds'?", **HEAD, kind="bias", lr=1),
    "nothing selected": rule("", "no selector", "params: backbone", lr=0.1),
    "nothing set": rule("", "sets nothing", "lr_scale", **HEAD),
    "key of no rule's algorithm": rule(
        ".momentum", "momentum belongs to ", "madgrad", "left over", **HEAD, momentum=0.9
    ),
    "key that the rule's own algorithm lacks": rule(
        ".betas", "a rule for muon", "left over from a config below?", **HEAD, optimizer="muon", betas=[0.9, 0.99]
    ),
    "scale of a missing hyperparameter": rule(
        ".weight_decay_scale", "rprop has no weight_decay", name="rprop", **HEAD, weight_decay_scale=2
    ),
    # Values in a rule
    "rule's lr text": rule(".lr", "'fast'", NUMBER, "lr: 0.001", **HEAD, lr="fast"),
    "rule's lr null": rule(".lr", "None", NUMBER, "lr: 0.001", **HEAD, lr=None),
    "rule's betas": rule(".betas", "[0.9, -1]", "a list of 2", **HEAD, betas=[0.9, -1]),
    "lr_scale in percent": rule(".lr_scale", "'10%'", NUMBER, "lr_scale: 0.1", **HEAD, lr_scale="10%"),
    "lr_scale negative": rule(".lr_scale", "-2", NUMBER, "lr_scale: 0.1", **HEAD, lr_scale=-2),
    "frozen text": rule(".frozen", "'yes'", "true or false", "frozen: true", **HEAD, frozen="yes"),
    "priority a word": rule(".priority", "'high'", "integer", "priority: 1", **HEAD, lr=1, priority="high"),
    "priority a fraction": rule(".priority", "0.5", "integer", "priority: 1", **HEAD, lr=1, priority=0.5),
    "allow_empty a word": rule(".allow_empty", "'maybe'", "true or false", **HEAD, lr=1, allow_empty="maybe"),
    "kinds in the plural": rule(".kinds", "'biases'", "Did you mean 'bias'?", kinds=["biases"], lr=1),
    "kinds that is a class": rule(".kinds", "'LayerNorm'", "Did you mean 'norm'?", kinds="LayerNorm", lr=1),
    "kinds a number": rule(".kinds", "3", "a string or a list of strings", kinds=3, lr=1),
    "params a mapping": rule(".params", "{'name': 'head'}", "a list of strings", params={"name": "head"}, lr=1),
    "params no regex": rule(".params", "'re:head.(w'", "not a valid regular expression", params="re:head.(w", lr=1),
    "params too large a regex": rule(".params", "not a valid regular expression", params="re:a{99999999999}", lr=1),
    # Algorithms in rules
    "rule's optimizer misspelt": rule(".optimizer", "'mun'", "Did you mean 'muon'?", **HEAD, optimizer="mun"),
    "rule's optimizer a block": rule(".optimizer", "{'name': 'muon'}", "muon", **HEAD, optimizer={"name": "muon"}),
    "lbfgs in a rule": rule(".optimizer", "lbfgs", "several times a step", "name: lbfgs", **HEAD, optimizer="lbfgs"),
    "rule's optimizer beside lbfgs": rule(
        ".optimizer", "lbfgs", "no other optimizer", "name: adamw", name="lbfgs", **HEAD, optimizer="sgd"
    ),
    "native class that does not exist, in a rule": groups(
        "implementation",
        "no adafactor of our own",
        "groups.x.optimizer: adafactor",
        groups={"x": {**HEAD, "optimizer": "adafactor"}},
        implementation="own",
    ),
    # Layers
    "layers without a number": rule(".layers", "'backbone.layer'", "one {i}", layers="backbone.layer", layer_decay=0.5),
    "layers with a star for the number": rule(
        ".layers", "'backbone.layer.*'", "one {i}", layers="backbone.layer.*", lr=1
    ),
    "layers by regex": rule(".layers", "'re:l.{i}'", "one {i}", layers="re:l.{i}", layer_decay=0.5),
    "layer_decay without layers": rule(".layer_decay", "groups.head.layers: backbone", **HEAD, layer_decay=0.5),
    "layer_decay above one": rule(
        ".layer_decay", "1.5", "> 0 and <= 1", "layer_decay: 0.75", **LAYERS, layer_decay=1.5
    ),
    "stem without layer_decay": rule(".stem", "layer_decay", "Remove stem", **LAYERS, lr=1, stem="embed"),
    # Schedules in rules
    "rule's schedule misspelt": rule(
        ".schedule.name", "'cosin'", "Did you mean 'cosine_annealing'?", **HEAD, schedule="cosin"
    ),
    "rule's schedule a number": rule(".schedule", "500", "schedule: {warmup_steps: 500}", **HEAD, schedule=500),
    "rule's schedule with an unknown argument": rule(
        ".schedule.warmup_step", "Did you mean 'warmup_steps'?", **HEAD, schedule={"warmup_step": 5}
    ),
    "rule's own schedule with an unknown argument": rule(
        ".schedule.end_facter", "Did you mean 'end_factor'?", **HEAD, schedule={"name": "linear", "end_facter": 0}
    ),
    "rule's schedule with an interval": rule(
        ".schedule.interval", "scheduler's config", **HEAD, schedule={"name": "linear", "interval": "epoch"}
    ),
    "rule's schedule a plateau": rule(
        ".schedule.name", "reduce_on_plateau", "whole run", **HEAD, schedule="reduce_on_plateau"
    ),
    "rule's warm-up a fraction": rule(
        ".schedule.warmup_steps", "0.1", "an integer >= 0", **HEAD, schedule={"warmup_steps": 0.1}
    ),
    # Mistakes that need the model
    "params misspelt": built(
        "groups.x",
        "'haed'",
        "Did you mean 'head'",
        "groups.x.allow_empty: true",
        groups={"x": {"params": "haed", "lr": 1}},
    ),
    "params with the attribute of the network": built(
        "groups.x", "'net.head'", "Did you mean 'head'", groups={"x": {"params": "net.head", "lr": 1}}
    ),
    "params a regex without re": built(
        "groups.x", "Did you mean 'head'", groups={"x": {"params": "head\\..*", "lr": 1}}
    ),
    "class misspelt": built(
        "groups.x", "LayerNrom", "Did you mean 'LayerNorm'?", groups={"x": {"classes": "LayerNrom", "lr": 1}}
    ),
    "class with a dotted name misspelt": built(
        "groups.x", "torch.nn.Liner", "Did you mean 'Linear'?", groups={"x": {"classes": "torch.nn.Liner", "lr": 1}}
    ),
    "selectors that match nothing together": built(
        "groups.x", "no parameter matches all of them", groups={"x": {**HEAD, "kinds": "norm", "lr": 1}}
    ),
    "layers misspelt": built(
        "groups.x",
        "'backbone.layers.{i}'",
        "Did you mean 'backbone.layer.{i}'",
        groups={"x": {"layers": "backbone.layers.{i}", "layer_decay": 0.5}},
    ),
    "layers inside layers": built(
        "groups.x.layers",
        "layer.0.layer.0 is a layer inside layer 0",
        params=nested,
        groups={"x": {"layers": "*layer.{i}", "layer_decay": 0.5}},
    ),
    "stem misspelt": built(
        "groups.x.stem", "'embd'", "Did you mean 'embed'", groups={"x": {**LAYERS, "layer_decay": 0.5, "stem": "embd"}}
    ),
    "stem elsewhere": built(
        "groups.x.stem",
        "'embed'",
        groups={"x": {**LAYERS, "params": "backbone", "layer_decay": 0.5, "stem": "embed"}},
    ),
    "two lrs": built(
        "groups.a.lr",
        "groups.b.lr",
        "head.bias",
        "groups.b.priority: 1",
        groups={"a": {**HEAD, "lr": 1}, "b": {"kinds": "bias", "lr": 2}},
    ),
    "frozen and not": built(
        "groups.a.frozen",
        "groups.b.frozen: false",
        "groups.b.priority: 1",
        groups={"a": {**HEAD, "frozen": True}, "b": {"kinds": "bias", "frozen": False}},
    ),
    "two algorithms": built(
        "groups.a.optimizer",
        "groups.b.optimizer: lion",
        "groups.b.priority: 1",
        groups={"a": {**HEAD, "optimizer": "sgd"}, "b": {"kinds": "bias", "optimizer": "lion"}},
    ),
    "two schedules": built(
        "groups.a.schedule",
        "groups.b.schedule",
        "groups.b.priority: 1",
        groups={"a": {**HEAD, "schedule": "constant"}, "b": {"kinds": "bias", "schedule": "linear"}},
    ),
    "field that another rule's algorithm lacks": built(
        "groups.head.amsgrad",
        "groups.hidden.optimizer: muon",
        "muon has no amsgrad",
        groups={"hidden": {"params": "head.weight", "optimizer": "muon"}, "head": {**HEAD, "amsgrad": True}},
    ),
    "scale that the winning algorithm lacks": built(
        "groups.a.weight_decay_scale",
        "groups.b.optimizer: rprop",
        groups={
            "a": {**HEAD, "optimizer": "adam", "weight_decay_scale": 0.5},
            "b": {**HEAD, "optimizer": "rprop", "priority": 1},
        },
    ),
    "scale to infinity": built("groups.x.lr_scale", "1e+300", lr=1e300, groups={"x": {**HEAD, "lr_scale": 1e300}}),
    "muon on a bias": built(
        "groups.x.optimizer",
        "takes matrices",
        "head.bias",
        "kinds: [matrix]",
        groups={"x": {**HEAD, "optimizer": "muon"}},
    ),
    "muon on everything": built("name", "takes matrices", "muon_adamw", name="muon"),
    "groups at lbfgs": built(
        "groups", "one param group", "default, x", "groups: null", name="lbfgs", groups={"x": {**HEAD, "lr_scale": 0.1}}
    ),
    "everything frozen": built(
        "groups", "all 11 parameters", "nothing is left to train", groups={"x": {"params": "*", "frozen": True}}
    ),
    "rules without names": built(
        "groups.x",
        "bare tensors",
        "named_parameters()",
        params=lambda: list(Net().parameters()),
        groups={"x": {**HEAD, "lr": 1}},
    ),
    "classes without modules": built(
        "groups.x.classes",
        "(name, parameter) pairs",
        "self.trainer.model.parameters()",
        params=lambda: list(Net().named_parameters()),
        groups={"x": {"classes": "Linear", "lr": 1}},
    ),
    "kinds without modules": built(
        "groups.x.kinds: norm",
        "(name, parameter) pairs",
        "self.trainer.model.parameters()",
        params=lambda: list(Net().named_parameters()),
        groups={"x": {"kinds": ["bias", "norm"], "lr": 1}},
    ),
    "two parameters of one name": built(
        "params", "the same name", "head.w", params=lambda: [("head.w", torch.zeros(2)), ("head.w", torch.ones(2))]
    ),
    "a used-up generator": built("params", "contains no parameters", "named_parameters()", params=used_up),
    "the network's name": built("params", "a str", "the module", params=lambda: "net"),
    "a lazy model": built("params", "lazy", "one batch", params=lambda: nn.LazyLinear(2)),
    # Schedules
    "schedule misspelt": schedule(
        "name", "'cosine_anealing'", "Did you mean 'cosine_annealing'?", name="cosine_anealing"
    ),
    "schedule by torch's class": schedule("name", "Did you mean 'cosine_annealing'?", name="CosineAnnealingLR"),
    "no schedule's name": (lambda: SchedulerFactory(warmup_steps=5), "name", ["SchedulerFactory", "name: "]),
    "argument misspelt": schedule("eta_mn", "Did you mean 'eta_min'?", name="cosine_annealing", eta_mn=0),
    "argument of another schedule": schedule(
        "gamma", "belongs to exponential", "left over from a config below?", name="cosine_annealing", gamma=0.1
    ),
    "argument that is missing": schedule("step_size", "an integer >= 1", name="step"),
    "interval in the plural": schedule("interval", "'steps'", "Did you mean 'step'?", name="linear", interval="steps"),
    "warm-up a part of the run": schedule("warmup_steps", "0.1", "an integer", name="linear", warmup_steps=0.1),
    "warm-up before one_cycle": schedule(
        "warmup_steps", "one_cycle does not take it", name="one_cycle", warmup_steps=3
    ),
    "max_lr": schedule("max_lr", "each group's lr is its peak", "optimizer.lr", name="one_cycle", max_lr=0.1),
    "epochs": schedule("epochs", "total_steps", name="one_cycle", epochs=3, steps_per_epoch=10),
    "length that it does not need": schedule("total_steps", "total_steps: null", name="constant", total_steps=10),
    "lambda in a config": schedule("lr_lambda", "From Python", name="lambda", lr_lambda="0.9 ** t"),
    "milestones that do not increase": schedule(
        "milestones", "[30, 10]", "an increasing list", name="multi_step", milestones=[30, 10]
    ),
    "block misspelt": schedule(
        "schedulers[0].name", "Did you mean 'linear'?", name="chained", schedulers=[{"name": "linaer"}]
    ),
    "optimizer among a schedule's arguments": schedule("optimizer", "_partial_: false", name="linear", optimizer=None),
    "length given nowhere": scheduled("scheduler.total_steps", "scheduler.total_steps: 1000", name="warmup_linear"),
    "warm-up longer than the run": scheduled(
        "warmup_steps", "30", "20 steps", name="cosine_annealing", warmup_steps=30, total_steps=20
    ),
    "base_lr above the lr": scheduled("base_lr", "above the lr 0.1", "base_lr: 0.01", name="cyclic", base_lr=1.0),
}


# What torch, OmegaConf and Python say of themselves, and no user should have to read.
RAW = re.compile(r"object_type|full_key|Traceback|<class|<function|NoneType|unexpected keyword|object at 0x|Invalid ")


def test_each_mistake_is_refused_by_its_key_in_a_message_of_its_own_on_one_line():
    messages = check_refusals(WRONG)
    assert len(set(messages.values())) == len(messages) >= 70
    assert [name for name, message in messages.items() if RAW.search(message) or "\n" in message] == []
    assert [name for name, message in messages.items() if not re.match(r"[\w.\[\]-]+: \S", message)] == []


# The same on the command line of a Hydra app, with the configs of the package

APP = """
defaults:
  - optimizer: adamw_groups
  - scheduler: cosine_annealing
"""
COMMAND_LINES: dict[str, tuple[list[str], str, list[str]]] = {
    "selector at the top": (["+optimizer.kinds=[bias]"], "kinds", BELONGS),
    "optimizer at the top": (["+optimizer.optimizer=muon"], "optimizer", BELONGS),
    "left over from sgd": (
        ["optimizer=sgd", "optimizer.name=adam"],
        "momentum",
        ["adam", "left over from the config optimizer/sgd? Then choose optimizer=adam"],
    ),
    "left over from adamw_groups": (
        ["optimizer.name=sgd"],
        "betas",
        ["left over from the config optimizer/adamw_groups? Then choose optimizer=sgd"],
    ),
    "left over from muon_adamw, with a value edited": (
        ["optimizer=muon_adamw", "optimizer.name=lion", "optimizer.lr=1e-4"],
        "eps",
        ["left over from the config optimizer/muon_adamw? Then choose optimizer=lion"],
    ),
    "rule left over from adamw_groups": (
        ["optimizer=rprop", "+optimizer/groups=[no_decay]"],
        "groups.no_decay.weight_decay",
        ["optimizer/groups/no_decay: optimizer.groups.no_decay=null leaves it out"],
    ),
    "layers without a number": (
        ["optimizer=adamw_llrd", "optimizer.groups.depth.layers=backbone.layer"],
        "groups.depth.layers",
        ["'backbone.layer'", "one {i}"],
    ),
    "layers misspelt": (
        ["optimizer=adamw_llrd", "optimizer.groups.depth.layers='backbone.layers.{i}'"],
        "groups.depth",
        ["Did you mean 'backbone.layer.{i}'"],
    ),
    "layer_decay in percent": (
        ["optimizer=adamw_llrd", "optimizer.groups.depth.layer_decay=75"],
        "groups.depth.layer_decay",
        ["75", "> 0 and <= 1", "layer_decay: 0.75"],
    ),
    "stem misspelt": (
        ["optimizer=adamw_llrd", "+optimizer.groups.depth.stem=embd"],
        "groups.depth.stem",
        ["Did you mean 'embed'"],
    ),
    "rule's optimizer misspelt": (
        ["optimizer=muon_adamw", "optimizer.groups.hidden.optimizer=mun"],
        "groups.hidden.optimizer",
        ["'mun'", "Did you mean 'muon'?"],
    ),
    "rule's key of another algorithm": (
        ["optimizer=muon_adamw", "+optimizer.groups.hidden.betas=[0.9,0.99]"],
        "groups.hidden.betas",
        ["a rule for muon", "left over from a config below?"],
    ),
    "rules that conflict": (
        ["optimizer=muon_adamw", "optimizer.groups.hidden.kinds=[bias]"],
        "groups.hidden.weight_decay",
        ["groups.no_decay.weight_decay", "4 parameters", "groups.no_decay.priority: 1"],
    ),
    "muon on other matrices": (
        ["optimizer=muon_adamw", "optimizer.groups.hidden.kinds=[matrix,norm]", "optimizer.groups.no_decay=null"],
        "groups.hidden.optimizer",
        ["takes matrices", "backbone.layer.0.norm.weight"],
    ),
    "params of another model": (
        ["optimizer=muon_adamw", "optimizer.groups.hidden.params=encoder"],
        "groups.hidden",
        ["'encoder'", "embed, backbone, head", "groups.hidden.allow_empty: true"],
    ),
    "rule without an effect": (["+optimizer.groups.head.params=head"], "groups.head", ["sets nothing", "lr_scale"]),
    "rule that is false": (["optimizer.groups.no_decay=false"], "groups.no_decay", ["False", "A rule is a mapping"]),
    "rule's schedule misspelt": (
        ["+optimizer.groups.head={params: head, schedule: {name: cosine_anealing}}"],
        "groups.head.schedule.name",
        ["Did you mean 'cosine_annealing'?"],
    ),
    "priority a word": (
        ["+optimizer.groups.no_decay.priority=first"],
        "groups.no_decay.priority",
        ["'first'", "integer"],
    ),
    "everything frozen": (
        ["+optimizer.groups.cold={params: '*', frozen: true}"],
        "groups",
        ["all 11 parameters"],
    ),
    "no name": (["~optimizer.name"], "name", ["adamw"]),
    "partial left over": (["optimizer._partial_=true"], "name", ["Type _partial_: false"]),
}


@pytest.mark.parametrize(
    "case",
    every(
        COMMAND_LINES,
        fast=["selector at the top", "left over from sgd", "rules that conflict", "params of another model", "no name"],
    ),
)
def test_each_mistake_on_the_command_line_is_refused_by_its_key(case, write_app):
    overrides, key, parts = COMMAND_LINES[case]
    config = write_app({"config.yaml": APP}).compose(*overrides)
    with pytest.raises((ConfigError, InstantiationException)) as shown:
        instantiate(config.optimizer)(Net())
    # Hydra 1.3 wraps errors raised during instantiation.
    error = shown.value.__cause__ if isinstance(shown.value, InstantiationException) else shown.value
    assert str(error) in str(shown.value)
    with pytest.raises(ConfigError) as caught:
        raise error
    check_message(caught, key, *parts)
