"""Wrong plans: refused by the constructor, or before the first step where the model is needed to see it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from tests.support.equality import equal
from tests.support.messages import check_message
from tests.support.staged_plans import HEAD, DeepNet, layers, on_plateau
from tests.support.training import Net, StepTrace, fit

LATE = {"params": "backbone", "at": {"epoch": 1}}
TOP = layers(at={"epoch": 1}, each={"epochs": 1})

Wrong = dict[str, tuple[Any, str, tuple[str, ...]]]
"""By name: the stages, the key that the error names, and what else it says."""

WRONG: Wrong = {
    # The plan
    "not a mapping": ([], "stages", ("got []", "stages: {head: {params: head}")),
    "no stage": ({}, "stages", ("got {}", "stages: {head: {params: head}")),
    "all stages null": ({"head": None}, "stages", ("no stage is trained from the start", "head.at: null")),
    "none from the start": ({"head": {**HEAD, "at": {"step": 1}}}, "stages", ("head.at: null",)),
    "stage not a mapping": ({"head": "head"}, "stages.head", ("got 'head'", "head: {params: backbone")),
    "name with a blank": ({"the head": HEAD}, "stages.the head", ("'the head'", "letters, digits, _ and -")),
    "name with a dot": ({"top.1": HEAD}, "stages.top.1", ("'top.1'",)),
    "reserved name": ({"default": HEAD}, "stages.default", ("default_params",)),
    "another reserved name": ({"all": HEAD}, "stages.all", ("the name 'all' is reserved",)),
    # Its selectors
    "no selector": ({"head": {"lr_scale": 1}}, "stages.head", ("it has no selector", "params: backbone")),
    "misspelt selector": ({"head": {"parms": "head"}}, "stages.head.parms", ("Did you mean 'params'?",)),
    "params a number": ({"head": {"params": 3}}, "stages.head.params", ("got 3", "params: [a, b]")),
    "params a broken regex": ({"head": {"params": "re:("}}, "stages.head.params", ("not a valid regular expression",)),
    "unknown kind": ({"head": {"kinds": ["biass"]}}, "stages.head.kinds", ("Did you mean 'bias'?",)),
    # Its layers
    "layers without {i}": (
        {"head": HEAD, "top": {**TOP, "layers": "backbone.layer"}},
        "stages.top.layers",
        ("one {i}", "backbone.encoder.layer.{i}"),
    ),
    "each without layers": (
        {"head": HEAD, "top": {**LATE, "each": {"epochs": 1}}},
        "stages.top.each",
        ('stages.top.layers: "top.layer.{i}"',),
    ),
    # Its triggers: tests/stages/test_trigger_config.py has every way to get one wrong.
    "misspelt trigger": ({"head": HEAD, "rest": {**LATE, "at": {"epoc": 1}}}, "stages.rest.at.epoc", ("'epoch'?",)),
    "at a number": ({"head": HEAD, "rest": {**LATE, "at": 1}}, "stages.rest.at", ("got 1", "at: {epoch: 1}")),
    "two triggers": (
        {"head": HEAD, "rest": {**LATE, "at": {"epoch": 1, "step": 5}}},
        "stages.rest.at",
        ("A trigger is one of epoch, step", "at: {any: [{epoch: 1}, {step: 500}]}"),
    ),
    "negative epoch": (
        {"head": HEAD, "rest": {**LATE, "at": {"epoch": -1}}},
        "stages.rest.at.epoch",
        ("got -1, which is not an integer >= 0", "epoch: 1"),
    ),
    "a fraction of 1": (
        {"head": HEAD, "rest": {**LATE, "at": {"fraction": 1}}},
        "stages.rest.at.fraction",
        ("got 1", "fraction: 0.5"),
    ),
    "after nothing": (
        {"head": HEAD, "rest": {**LATE, "at": {"after": {}}}},
        "stages.rest.at.after",
        ("after: {epochs: 1}",),
    ),
    "any of nothing": (
        {"head": HEAD, "rest": {**LATE, "at": {"any": []}}},
        "stages.rest.at.any",
        ("any: [{epoch: 1}",),
    ),
    "no monitor": (
        {"head": HEAD, "rest": {**LATE, "at": {"plateau": {"patience": 2}}}},
        "stages.rest.at.plateau.monitor",
        ("got None", "val/loss"),
    ),
    "wrong within any": (
        {"head": HEAD, "rest": {**LATE, "at": {"any": [{"epoch": 1}, on_plateau("loss", 0)]}}},
        "stages.rest.at.any[1].plateau.patience",
        ("got 0", "patience: 3"),
    ),
    "wrong each": ({"head": HEAD, "top": {**TOP, "each": {"epoch": 1}}}, "stages.top.each.epoch", ("'epochs'?",)),
    # Its own options
    "lr_scale a string": ({"head": {**HEAD, "lr_scale": "x"}}, "stages.head.lr_scale", ("got 'x'", "lr_scale: 0.1")),
    "negative lr_scale": ({"head": {**HEAD, "lr_scale": -1}}, "stages.head.lr_scale", ("got -1", "lr_scale: 0.1")),
    "half a warm-up step": ({"head": {**HEAD, "warmup_steps": 0.5}}, "stages.head.warmup_steps", ("got 0.5",)),
    "allow_unused a string": ({"head": {**HEAD, "allow_unused": "yes"}}, "stages.head.allow_unused", ("got 'yes'",)),
    "allow_empty a number": ({"head": {**HEAD, "allow_empty": 1}}, "stages.head.allow_empty", ("got 1",)),
    "misspelt option": ({"head": {**HEAD, "warm_up_steps": 1}}, "stages.head.warm_up_steps", ("'warmup_steps'?",)),
    # The optimizer's: tests/stages/test_overrides.py has more.
    "misspelt hyperparameter": (
        {"head": HEAD, "rest": {**LATE, "weight_dcay": 0.1}},
        "stages.rest.weight_dcay",
        ("Did you mean 'weight_decay'?",),
    ),
    "of the whole optimizer": ({"head": HEAD, "rest": {**LATE, "foreach": True}}, "stages.rest.foreach", ("whole",)),
    "null value": ({"head": HEAD, "rest": {**LATE, "eps": None}}, "stages.rest.eps", ("got None", "leave eps out")),
}


@pytest.mark.parametrize(("stages", "key", "parts"), WRONG.values(), ids=WRONG)
def test_a_wrong_plan_is_refused_by_the_constructor(stages, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        StagedUnfreeze(stages)
    check_message(caught, key, *parts)


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^frozen_norm: there is no mode 'evil'\. Did you mean 'eval'"):
        StagedUnfreeze({"head": HEAD}, frozen_norm="evil")


WRONG_FOR_THE_MODEL: Wrong = {
    "params match nothing": (
        {"head": HEAD, "rest": {**LATE, "params": "bakbone"}},
        "stages.rest",
        ("'bakbone' matches none of 16 names", "Did you mean 'backbone'", "stages.rest.allow_empty: true"),
    ),
    "classes match nothing": (
        {"head": {"classes": "Liner"}, "rest": LATE},
        "stages.head",
        ("Did you mean 'Linear'?", "allow_empty: true"),
    ),
    "selectors exclude each other": (
        {"head": {"params": "head", "kinds": ["norm"]}, "rest": LATE},
        "stages.head",
        ("no parameter matches all of them",),
    ),
    "all taken": (
        {"body": LATE, "head": HEAD, "top": layers(at={"epoch": 2})},
        "stages.top",
        ("all 12 parameters it matches belong to a stage above it", "put the narrower stage first"),
    ),
    "some in no stage": (
        {"head": HEAD, "top": TOP},
        "stages",
        ("2 parameters that require a gradient belong to no stage: backbone.stem", "backbone: {params: backbone}"),
    ),
    "layers match nothing": (
        {"head": HEAD, "top": {**TOP, "layers": "backbone.blocks.{i}"}, "rest": LATE},
        "stages.top",
        ("'backbone.blocks.{i}' matches no module", "backbone.layer.{i}", "allow_empty: true"),
    ),
    "layers within layers": (
        {"head": HEAD, "top": {**TOP, "layers": "*.{i}"}, "rest": LATE},
        "stages.top.layers",
        ("a layer inside layer", "without a * that also matches inside a layer"),
    ),
    "of another optimizer": (
        {"head": HEAD, "rest": {**LATE, "momentum": 0.9}},
        "stages.rest.momentum",
        ("adamw has no momentum", "Remove it"),
    ),
    "wrong value": ({"head": HEAD, "rest": {**LATE, "eps": -1}}, "stages.rest.eps", ("got -1", "eps: 1.0e-08")),
}


@pytest.mark.parametrize(("stages", "key", "parts"), WRONG_FOR_THE_MODEL.values(), ids=WRONG_FOR_THE_MODEL)
def test_a_plan_that_does_not_fit_the_model_is_refused_before_the_first_step(tmp_path, stages, key, parts) -> None:
    module, trace = DeepNet(), StepTrace()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError) as caught:
        fit(module, tmp_path, StagedUnfreeze(stages), trace)
    check_message(caught, key, *parts)
    assert not trace.steps
    assert equal(module.state_dict(), before)


def test_explain_refuses_what_a_fit_would() -> None:
    with pytest.raises(ConfigError) as caught:
        StagedUnfreeze({"head": HEAD}).explain(DeepNet(), OptimizerFactory("adamw"))
    check_message(caught, "stages", "14 parameters that require a gradient belong to no stage: backbone.stem")


def test_an_optimizer_without_a_claimed_parameter_is_refused(tmp_path) -> None:
    module = Net(lambda module: torch.optim.SGD(module.head.parameters(), 0.1))
    with pytest.raises(ConfigError) as caught:
        fit(module, tmp_path, StagedUnfreeze({"head": HEAD, "backbone": LATE}))
    check_message(caught, "stages.backbone", "no optimizer holds 6 of the parameters it claims", "self.parameters()")
