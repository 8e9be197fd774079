"""A simulation gives bitwise the lrs of a fit, and leaves the model unchanged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers
from lightning_optim.cli.run_length import RunLength
from lightning_optim.cli.simulate import Simulation, simulate
from lightning_optim.stages.stages import claim
from lightning_optim.stages.timetable import Timetable
from tests.support.cases import every
from tests.support.training import BATCHES, Net, StepTrace, fit

EPOCHS = 5
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
ADAMW = OptimizerFactory("adamw", lr=0.01, groups=NO_DECAY)

SCHEDULES: dict[str, SchedulerFactory | None] = {
    "none": None,
    "cosine": SchedulerFactory("cosine_annealing"),
    "cosine by epoch": SchedulerFactory("cosine_annealing", interval="epoch"),
    "one cycle": SchedulerFactory("one_cycle"),
    "cyclic": SchedulerFactory("cyclic", base_lr=1e-4, step_size_up=3),
    "restarts": SchedulerFactory("cosine_annealing_warm_restarts", T_0=3),
    "warm-up": SchedulerFactory("warmup_cosine", warmup_steps=3),
    "exponential by epoch": SchedulerFactory("exponential", interval="epoch", gamma=0.5),
    "sequential": SchedulerFactory(
        "sequential",
        schedulers=[{"name": "linear", "total_iters": 4}, {"name": "step", "step_size": 3}],
        milestones=[5],
    ),
    "chained": SchedulerFactory(
        "chained", schedulers=[{"name": "constant", "total_iters": 2}, {"name": "exponential", "gamma": 0.9}]
    ),
    "plateau that never comes": SchedulerFactory("reduce_on_plateau", monitor="loss", patience=1000),
}
BACKBONE = {"params": "backbone"}
PLANS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "by epoch": {"head": {"params": "head"}, "backbone": {**BACKBONE, "at": {"epoch": 1}, "lr_scale": 0.1}},
    "by step, warmed up": {
        "head": {"params": "head"},
        "backbone": {**BACKBONE, "at": {"step": 7}, "warmup_steps": 4},
    },
    "by layer": {
        "head": {"params": "head", "warmup_steps": 2},
        "top": {"layers": "backbone.{i}", "at": {"fraction": 0.3}, "each": {"epochs": 1}, "lr_scale": 0.3},
    },
    "by layer, in steps": {
        "head": {"params": "head"},
        "top": {"layers": "backbone.{i}", "at": {"epoch": 1}, "each": {"steps": 3}},
    },
    "after, and any": {
        "head": {"params": "head"},
        "norm": {"params": "backbone.1", "at": {"any": [{"epoch": 3}, {"step": 5}]}},
        "rest": {**BACKBONE, "at": {"after": {"steps": 2}}},
    },
}


def simulate_run(
    module: nn.Module,
    optimizer: OptimizerFactory = ADAMW,
    scheduler: SchedulerFactory | None = None,
    stages: Any = None,
    **limits: Any,
) -> Simulation:
    claimed = () if stages is None else claim(StagedUnfreeze(stages).stages, module)
    length = RunLength(**{"max_epochs": EPOCHS, "steps_per_epoch": BATCHES, **limits})
    length.check(scheduler, claimed)
    return simulate(module, optimizer, scheduler, claimed, length=length)


def simulated_lrs(*arguments: Any, **limits: Any) -> list[dict[str, float]]:
    """The live groups' lrs at each step of a simulated run."""
    simulation = simulate_run(Net(None), *arguments, **limits)
    steps = [
        {curve.group: float(curve.lr[step]) for curve in simulation.curves}
        for step in range(simulation.length.total("step"))
    ]
    return [{group: lr for group, lr in lrs.items() if not math.isnan(lr)} for lrs in steps]


def fitted_lrs(
    folder: Path, optimizer: OptimizerFactory, scheduler: Any, stages: Any, **arguments: Any
) -> list[dict[str, float]]:
    """The live groups' lrs at each step of a real run."""
    trace = StepTrace()
    callbacks = [] if stages is None else [StagedUnfreeze(stages)]
    module = Net(lambda module: configure_optimizers(module, optimizer, scheduler))
    fit(module, folder, *callbacks, trace, **{"epochs": EPOCHS, **arguments})
    return trace.steps


PAIRS = [
    *((schedule, "by layer") for schedule in SCHEDULES),
    *(("one cycle", plan) for plan in PLANS if plan != "by layer"),
]
FAST_PAIRS = (
    *("none, by layer", "cosine by epoch, by layer", "sequential, by layer", "plateau that never comes, by layer"),
    *("one cycle, none", "one cycle, by step, warmed up", "one cycle, after, and any"),
)


@pytest.mark.parametrize(("schedule", "plan"), every(PAIRS, fast=FAST_PAIRS, id=", ".join))
def test_lrs_are_bitwise_those_of_a_fit(tmp_path, schedule, plan) -> None:
    lrs = fitted_lrs(tmp_path, ADAMW, SCHEDULES[schedule], PLANS[plan])
    assert len(lrs) == EPOCHS * BATCHES
    assert simulated_lrs(ADAMW, SCHEDULES[schedule], PLANS[plan]) == lrs


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (OptimizerFactory("sgd", lr=0.1, momentum=0.9, groups={"h": {"params": "head", "lr_scale": 3}}), "one cycle"),
        (OptimizerFactory("sgd", lr=0.1, groups={"h": {"params": "head", "schedule": "constant"}}), "cosine"),
        (OptimizerFactory("sgd", lr=0.1, groups={"h": {"params": "head", "schedule": {"name": "one_cycle"}}}), "none"),
        (
            OptimizerFactory("sgd", lr=0.1, groups={"h": {"params": "head", "schedule": {"name": "warmup_linear"}}}),
            "plateau that never comes",
        ),
        (OptimizerFactory("adamw", groups={"stem": {"params": "backbone.0", "frozen": True}}), "warm-up"),
        (OptimizerFactory("adamw", groups={"d": {"layers": "backbone.{i}", "layer_decay": 0.7}}), "cyclic"),
        (OptimizerFactory("sgd", lr=0.1, groups={"m": {"kinds": "matrix", "optimizer": "muon"}}), "one cycle"),
    ],
    ids=[
        *("momentum", "constant schedule of a rule", "schedule of a rule without another"),
        *("schedule of a rule beside a plateau", "frozen rule", "layer decay", "two algorithms"),
    ],
)
def test_lrs_are_those_of_a_fit_whatever_the_rules(tmp_path, optimizer, schedule) -> None:
    stages = {"head": {"params": "head"}, "backbone": {**BACKBONE, "at": {"epoch": 1}, "lr_scale": 0.1}}
    lrs = fitted_lrs(tmp_path, optimizer, SCHEDULES[schedule], stages)
    assert simulated_lrs(optimizer, SCHEDULES[schedule], stages) == lrs


def test_a_rules_own_schedule_beside_a_constant_lr_is_simulated(tmp_path) -> None:
    optimizer = OptimizerFactory("sgd", lr=0.1, groups={"h": {"params": "head", "schedule": {"name": "one_cycle"}}})
    assert simulated_lrs(optimizer) == fitted_lrs(tmp_path, optimizer, None, None)


def test_a_stages_own_lr_is_simulated(tmp_path) -> None:
    optimizer, scheduler = OptimizerFactory("sgd", lr=0.1, momentum=0.9), SCHEDULES["one cycle"]
    stages = {"head": {"params": "head"}, "backbone": {**BACKBONE, "at": {"step": 3}, "lr": 0.003, "momentum": 0.5}}
    assert simulated_lrs(optimizer, scheduler, stages) == fitted_lrs(tmp_path, optimizer, scheduler, stages)


LENGTHS = {
    "accumulated": ({"accumulate_grad_batches": 2}, {"steps_per_epoch": 2}),
    "accumulated with a remainder": ({"accumulate_grad_batches": 3}, {"steps_per_epoch": 2}),
    "ended by steps": ({"max_steps": 7}, {"max_steps": 7}),
    "ended by epochs": ({"max_steps": 99}, {"max_steps": 99}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "plan"), [("warm-up", "by layer"), ("cosine by epoch", "by epoch")])
@pytest.mark.parametrize("length", every(LENGTHS, fast=["accumulated with a remainder", "ended by steps"]))
def test_lrs_are_those_of_a_fit_whatever_the_length(tmp_path, schedule, plan, length) -> None:
    trainer_arguments, limits = LENGTHS[length]
    lrs = fitted_lrs(tmp_path, ADAMW, SCHEDULES[schedule], PLANS[plan], **trainer_arguments)
    assert simulated_lrs(ADAMW, SCHEDULES[schedule], PLANS[plan], **limits) == lrs


def test_a_run_counted_in_steps_needs_no_length_of_an_epoch(tmp_path) -> None:
    stages, scheduler = PLANS["by step, warmed up"], SCHEDULES["warm-up"]
    lrs = fitted_lrs(tmp_path, ADAMW, scheduler, stages, epochs=-1, max_steps=10)
    limits = {"max_epochs": math.inf, "max_steps": 10, "steps_per_epoch": None}
    assert simulated_lrs(ADAMW, scheduler, stages, **limits) == lrs


def test_thaws_and_groups_come_in_order() -> None:
    found = simulate_run(Net(None), stages=PLANS["by layer"])
    assert dict(found.thaws) == {"top.3": 6, "top.1": 8, "top.0": 12}
    groups = ["head", "head.no_decay", "top.3", "top.3.no_decay", "top.1.no_decay", "top.0", "top.0.no_decay"]
    assert [curve.group for curve in found.curves] == groups
    assert [int(np.isnan(curve.lr).sum()) for curve in found.curves] == [0, 0, 6, 6, 8, 12, 12]
    assert not found.unpredictable and found.plateau_metric is None


# What cannot be predicted.

PLATEAU = {"plateau": {"monitor": "val/loss", "patience": 2}}


def callable_trigger(trainer: Any, module: Any) -> bool:
    raise AssertionError("a simulation has no trainer to call it with")


@pytest.mark.parametrize(
    ("at", "unpredictable", "thaws"),
    [
        ([PLATEAU, {"epoch": 2}], ["one"], {"two": 8}),
        ([PLATEAU, {"after": {"epochs": 1}}], ["one", "two"], {}),
        ([callable_trigger, {"after": {"steps": 1}}], ["one", "two"], {}),
        ([{"any": [PLATEAU, {"epoch": 2}]}, {"step": 3}], ["one"], {"two": 3}),
        ([{"any": [{"epoch": 2}, {"epoch": 1}]}, PLATEAU], ["two"], {"one": 4}),
        ([{"any": [PLATEAU, {"step": 0}]}, {"after": {"epochs": 2}}], [], {"two": 8}),
        ([callable_trigger, {"any": [{"after": {"steps": 1}}, {"epoch": 1}]}], ["one", "two"], {}),
        ([{"epoch": 99}, {"after": {"steps": 1}}], [], {}),
    ],
    ids=[
        "plateau",
        "after a plateau",
        "after a callable",
        "any with a plateau",
        "any of epochs",
        "any from the start",
        "any after",
        "beyond the end",
    ],
)
def test_an_unpredictable_thaw_is_not_guessed(at, unpredictable, thaws) -> None:
    stages = {
        "head": {"params": "head"},
        "one": {"params": "backbone.3", "at": at[0]},
        "two": {"params": "backbone", "at": at[1]},
    }
    found = simulate_run(Net(None), OptimizerFactory("sgd", lr=0.1), stages=stages)
    assert list(found.unpredictable) == unpredictable
    assert dict(found.thaws) == thaws
    assert [len(list(filter(math.isfinite, curve.lr))) > 0 for curve in found.curves] == [
        True,
        "one" in thaws or at[0] == {"any": [PLATEAU, {"step": 0}]},
        "two" in thaws,
    ]
    if "one" in unpredictable and at[0] is PLATEAU:
        assert found.unpredictable["one"] == "plateau of val/loss, patience 2"


def test_layers_that_wait_for_a_plateau_are_unpredictable() -> None:
    stages = {"head": {"params": "head"}, "top": {"layers": "backbone.{i}", "at": {"epoch": 1}, "each": PLATEAU}}
    found = simulate_run(Net(None), stages=stages)
    assert list(found.unpredictable) == ["top.1", "top.0"] and dict(found.thaws) == {"top.3": 4}


def test_the_lr_of_reduce_on_plateau_stays_constant() -> None:
    scheduler = SchedulerFactory("reduce_on_plateau", monitor="val/loss", patience=0)
    found = simulate_run(Net(None), scheduler=scheduler)
    assert found.plateau_metric == "val/loss"
    assert {lr for curve in found.curves for lr in curve.lr} == {0.01}


def test_a_warmup_in_epochs_needs_the_length_of_an_epoch() -> None:
    in_epochs = SchedulerFactory("inverse_sqrt", warmup_epochs=2, timescale=9)
    in_steps = SchedulerFactory("inverse_sqrt", warmup_steps=8, timescale=9)
    length = {"max_epochs": 3, "steps_per_epoch": 4}
    found, expected = (simulate_run(Net(None), scheduler=given, **length) for given in (in_epochs, in_steps))
    assert [curve.lr.tolist() for curve in found.curves] == [curve.lr.tolist() for curve in expected.curves]
    unknown = {"max_epochs": math.inf, "max_steps": 12, "steps_per_epoch": None}
    with pytest.raises(ConfigError, match=r"^--steps-per-epoch: warmup_epochs counts them"):
        simulate_run(Net(None), scheduler=in_epochs, **unknown)


def test_an_unpredictable_trigger_needs_no_length_of_an_epoch() -> None:
    stages = {"head": {"params": "head"}, "backbone": {**BACKBONE, "at": {"any": [PLATEAU, {"epoch": 2}]}}}
    length = {"max_epochs": math.inf, "max_steps": 3, "steps_per_epoch": None}
    assert list(simulate_run(Net(None), stages=stages, **length).unpredictable) == ["backbone"]


# The model.


class Uncopyable(Net):
    """A model that cannot be copied, with names that a module does not accept as attributes."""

    def __init__(self) -> None:
        super().__init__(None)
        self.backbone.odd = nn.ParameterDict()
        self.backbone.odd._parameters["forward"] = nn.Parameter(torch.ones(2))
        self.backbone.again = self.head

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot be copied")


def test_the_model_is_unchanged() -> None:
    module = Uncopyable().eval()
    module.backbone[0].bias.requires_grad_(False)
    module.head.weight.grad = torch.ones(3, 8)

    def state() -> Any:
        parameters = [
            (name, id(p), id(p.grad), p._version, p.requires_grad, p.shape) for name, p in module.named_parameters()
        ]
        return parameters, [(m.training, len(m._forward_hooks), sorted(vars(m))) for m in module.modules()]

    before, values = state(), [p.clone() for p in module.parameters()]
    optimizer = OptimizerFactory("adagrad", groups={"stem": {"params": "backbone.0", "frozen": True}})
    stages = {"head": {"params": "head"}, "backbone": {**BACKBONE, "at": {"epoch": 1}}}
    found = simulate_run(module, optimizer, SCHEDULES["warm-up"], stages)
    assert [curve.group for curve in found.curves] == ["head", "backbone"]
    assert state() == before
    assert all(map(torch.equal, module.parameters(), values))


def test_the_timetable_of_the_callback_is_unchanged() -> None:
    unfreeze = StagedUnfreeze({"head": {"params": "head"}, "backbone": {**BACKBONE, "at": PLATEAU}})
    before = Timetable(unfreeze.stages).state_dict()
    stages = claim(unfreeze.stages, Net(None))
    simulate(Net(None), ADAMW, stages=stages, length=RunLength(max_steps=3))
    assert Timetable(unfreeze.stages).state_dict() == before


# Errors.


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "stages", "message"),
    [
        (
            ADAMW,
            SchedulerFactory("warmup_cosine", warmup_steps=20),
            None,
            "scheduler: warmup_steps: 20 is not less than the run",
        ),
        (
            ADAMW,
            SchedulerFactory("one_cycle", total_steps=10),
            None,
            "scheduler: total_steps: after 11 optimizer steps of the",
        ),
        (ADAMW, SchedulerFactory("reduce_on_plateau"), None, "scheduler: monitor: reduce_on_plateau needs a metric"),
        (ADAMW, None, {"head": {"params": "head"}}, "^stages: 6 parameters that require a gradient belong to no stage"),
        (OptimizerFactory("lbfgs"), None, PLANS["by epoch"], "^stages: lbfgs takes one param group"),
    ],
    ids=["warm-up too long", "schedule too short", "no metric", "unclaimed", "lbfgs"],
)
def test_errors_are_those_of_the_start_of_a_run(optimizer, scheduler, stages, message) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_run(Net(None), optimizer, scheduler, stages)
