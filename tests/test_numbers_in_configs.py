"""A number may be one of numpy everywhere, and text in its place is named as text everywhere."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
    WeightDecay,
    optim,
)
from tests.support.messages import check_refusals

HEAD = {"params": "head"}


def stages(**backbone):
    return StagedUnfreeze({"head": HEAD, "backbone": {"params": "backbone", **backbone}})


def rule(**head):
    return OptimizerFactory("adamw", groups={"head": {**HEAD, **head}})


# Where a config has a number: the key, what takes it, and a value.
PLACES = {
    "lr": (lambda x: OptimizerFactory("adamw", lr=x), 1),
    "betas": (lambda x: OptimizerFactory("adamw", betas=[0.9, x]), 0.5),
    "lookahead.k": (lambda x: OptimizerFactory("adamw", lookahead={"k": x}), 5),
    "ns_steps": (lambda x: OptimizerFactory("muon", ns_steps=x), 4),
    "groups.head.lr": (lambda x: rule(lr=x), 1),
    "groups.head.lr_scale": (lambda x: rule(lr_scale=x), 2),
    "groups.head.priority": (lambda x: rule(lr=1, priority=x), 3),
    "groups.head.lookahead.k": (lambda x: rule(lookahead={"k": x}), 5),
    "groups.head.schedule.warmup_steps": (lambda x: rule(schedule={"warmup_steps": x}), 3),
    "groups.head.schedule.final_scale": (
        lambda x: rule(schedule={"name": "warmup_linear", "final_scale": x}),
        0.5,
    ),
    "warmup_steps": (lambda x: SchedulerFactory("warmup_cosine", warmup_steps=x), 3),
    "total_steps": (lambda x: SchedulerFactory("warmup_cosine", total_steps=x), 30),
    "milestones": (lambda x: SchedulerFactory("multi_step", milestones=[1, x]), 5),
    "T_0": (lambda x: SchedulerFactory("cosine_annealing_warm_restarts", T_0=x), 5),
    "schedulers[0].total_iters": (
        lambda x: SchedulerFactory("chained", schedulers=[{"name": "linear", "total_iters": x}]),
        5,
    ),
    "stages.backbone.at.epoch": (lambda x: stages(at={"epoch": x}), 1),
    "stages.backbone.at.fraction": (lambda x: stages(at={"fraction": x}), 0.5),
    "stages.backbone.at.after.steps": (lambda x: stages(at={"after": {"steps": x}}), 2),
    "stages.backbone.at.any[0].step": (lambda x: stages(at={"any": [{"step": x}]}), 2),
    "stages.backbone.at.plateau.patience": (lambda x: stages(at={"plateau": {"monitor": "loss", "patience": x}}), 2),
    "stages.backbone.each.epochs": (lambda x: stages(layers="backbone.{i}", at={"epoch": 1}, each={"epochs": x}), 2),
    "stages.backbone.lr_scale": (lambda x: stages(at={"epoch": 1}, lr_scale=x), 2),
    "stages.backbone.warmup_steps": (lambda x: stages(at={"epoch": 1}, warmup_steps=x), 2),
    "every_n_steps": (lambda x: OptimizerMonitor(every_n_steps=x), 5),
    "every_n_steps ": (lambda x: SophiaHessian(every_n_steps=x), 5),
    "weight_decay": (lambda x: WeightDecay(x, "l2"), 1),
    "lr ": (lambda x: optim.Lion([torch.zeros(1)], lr=x), 1),
    "lookahead.k ": (lambda x: optim.Lion([torch.zeros(1)], lookahead={"k": x, "alpha": 0.5}), 5),
}


def kinds_of_number(value):
    """`(number, the same in Python)` for every type that is a number."""
    yield from ((kind(value), float(value)) for kind in (np.float32, np.float64, np.longdouble, Fraction))
    yield np.array(value), value
    if isinstance(value, int):
        yield from ((kind(value), value) for kind in (np.int64, np.uint8))


def describe(built):
    """What an object holds, as text."""
    if isinstance(built, OptimizerMonitor):
        return repr(built)  # the rest is what it has logged
    held = {"_config": built._config} if isinstance(built, StagedUnfreeze) else vars(built)
    # What is known of the tensors of past steps is an object without a text of its own, and was in no config.
    return str({key: str(value) for key, value in held.items() if key != "_known_groups"})


@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_number_is_accepted_as_the_number_itself(place):
    build, value = PLACES[place]
    for number, python in kinds_of_number(value):
        assert describe(build(number)) == describe(build(python)), repr(number)


def test_text_in_place_of_a_number_is_named_everywhere():
    check_refusals(
        {
            place: (
                lambda build=build, value=value: build(str(value)),
                place.strip(),
                ["which is text, not ", "${oc.decode:${oc.env:NAME}}"],
            )
            for place, (build, value) in PLACES.items()
        }
    )


def test_a_tensor_in_place_of_a_number_is_refused_everywhere_but_as_the_lr_of_a_class():
    check_refusals(
        {
            place: (
                lambda build=build, value=value: build(torch.tensor(value)),
                place.strip(),
                ["a tensor, not ", "Type its number: value.item()"],
            )
            for place, (build, value) in PLACES.items()
            if place not in ("lr ", "betas", "milestones")  # a class keeps a tensor lr, for schedulers to write into
        }
    )


def test_flags_of_numpy_are_flags_and_flags_as_text_are_named():
    assert OptimizerFactory("adamw", amsgrad=np.True_).hyperparameters == {"amsgrad": True}
    assert OptimizerMonitor(update_norm=np.bool_(False)).update_norm is False
    check_refusals(
        {
            "decay": (lambda: WeightDecay(1, "decoupled", cautious="true"), "cautious_decay", ["text"]),
            "top": (lambda: OptimizerFactory("adamw", amsgrad="true"), "amsgrad", ["text", "Type amsgrad: true "]),
            "rule": (lambda: rule(frozen="yes"), "groups.head.frozen", ["text", "Type frozen: true "]),
            "schedule": (
                lambda: SchedulerFactory("one_cycle", three_phase="False"),
                "three_phase",
                ["text", "Type three_phase: false "],
            ),
            "stage": (
                lambda: stages(at={"epoch": 1}, allow_unused="true"),
                "stages.backbone.allow_unused",
                ["text", "Type allow_unused: true "],
            ),
            "monitor": (lambda: OptimizerMonitor(cosine="true"), "cosine", ["text", "Type cosine: true "]),
        }
    )


def test_the_factories_hold_plain_data_whatever_they_were_given():
    factory = OptimizerFactory(
        "adam",
        lr=np.float32(0.5),
        betas=np.array([0.5, 0.75]),
        weight_decay=WeightDecay(np.float32(0.5), "relative"),
        groups={"head": {"params": ["head"], "priority": np.int16(1), "lr_scale": np.float32(0.5)}},
    )
    scheduler = SchedulerFactory("warmup_cosine", warmup_steps=np.int64(3), final_scale=np.float32(0.5))
    for held in (factory, scheduler):
        assert json.loads(json.dumps(vars(held))) == vars(held)
    group = factory(nn.ModuleDict({"head": nn.Linear(2, 2)})).param_groups[0]
    assert {key: type(group[key]) for key in ("lr", "weight_decay", "eps")} == dict.fromkeys(
        ("lr", "weight_decay", "eps"), float
    )


def test_the_length_that_a_schedule_is_called_with_is_a_plain_number_in_its_state():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scheduler = SchedulerFactory("cosine_annealing")(optimizer, np.int64(10))
    assert scheduler.state_dict()["T_max"] == 10
    assert type(scheduler.state_dict()["T_max"]) is int
    check_refusals(
        {"text": (lambda: SchedulerFactory("cosine_annealing")(optimizer, "10"), "total_steps", ["which is text"])}
    )
