"""The checks of a schedule's config when a SchedulerFactory is created: key, value given, what to type."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, SchedulerFactory
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.messages import check_message
from tests.support.schedules import CURVES_WITH_LENGTH, SEQUENCE, lr_lambda

NOT_TAKEN = {"optimizer", "last_epoch", "max_lr", "epochs", "steps_per_epoch", "scale_fn", "schedulers", "lr_lambda"}


@pytest.mark.parametrize("name", [name for name, info in SCHEDULES.items() if info.path.startswith("torch.")])
def test_arguments_are_those_of_torch_s_signature(name) -> None:
    module, _, cls = SCHEDULES[name].path.partition(":")
    signature = set(inspect.signature(getattr(import_module(module), cls)).parameters) - NOT_TAKEN
    ours = set(SCHEDULES[name].hyperparameters) - {"monitor", "final_scale"}
    # `total_steps` of the factory replaces torch's.
    assert ours | {"total_steps"} == signature | {"total_steps"}


def test_every_scheduler_class_of_torch_is_in_the_catalog() -> None:
    known = {info.path.partition(":")[2] for info in SCHEDULES.values()}
    assert {name for name in lr_scheduler.__all__ if name != "LRScheduler"} <= known


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, {}) for name in ("cosine_annealing", "one_cycle", *CURVES_WITH_LENGTH)),
        ("sequential", {"schedulers": [{"name": "linear"}, {"name": "warmup_cosine"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "linear"}, {"name": "cosine_annealing"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schedule_without_a_length_needs_total_steps(name, given) -> None:
    assert SchedulerFactory(name, **given).needs_total_steps
    assert not SchedulerFactory(name, total_steps=9, **given).needs_total_steps


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("noam", {"warmup_steps": 3}),
        ("cosine_annealing", {"T_max": 5}),
        ("sequential", {"schedulers": [{"name": "cosine_annealing"}, {"name": "linear"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "cosine_annealing", "T_max": 3}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schedule_with_a_length_of_its_own_does_not_need_total_steps(name, given) -> None:
    assert not SchedulerFactory(name, **given).needs_total_steps


BLOCK = {"name": "exponential", "gamma": 0.9}


@pytest.mark.parametrize("index", [0, 1], ids=["first", "last"])
@pytest.mark.parametrize(
    "block",
    [
        {"name": "inverse_sqrt", "warmup_steps": 3},
        {"name": "step", "step_size": 3, "warmup_steps": 3},
        {"name": "cosine_annealing_warm_restarts", "T_0": 4},
        {"name": "lambda", "lr_lambda": lr_lambda},
        {"name": "sequential", **SEQUENCE},
    ],
    ids=lambda block: block["name"],
)
def test_chained_refuses_a_block_that_sets_the_lr_instead_of_multiplying_it(block, index) -> None:
    with pytest.raises(ConfigError, match=rf"^schedulers\[{index}\]\..* chained"):
        SchedulerFactory("chained", schedulers=[block, BLOCK] if index == 0 else [BLOCK, block])


NESTED = {"name": "sequential", "schedulers": [BLOCK, {"name": "step"}], "milestones": [3]}
WRONG: list[tuple[Any, dict[str, Any], list[str]]] = [
    ("warmup_cosin", {}, ["name", "'warmup_cosin'", "Did you mean 'warmup_cosine'?", "chained, constant, "]),
    (None, {}, ["name", "None"]),
    ("step", {"step_sise": 3}, ["step_sise", "Did you mean 'step_size'?", "step_size, gamma, interval, warmup_steps"]),
    ("step", {"optimizer": None}, ["optimizer", "_partial_: true", "Type _partial_: false"]),
    ("one_cycle", {"max_lr": 0.1}, ["max_lr", "each group's lr is its peak", "optimizer.lr"]),
    ("cyclic", {"max_lr": [0.1]}, ["max_lr", "each group's lr is its peak", "optimizer.lr"]),
    ("one_cycle", {"epochs": 3}, ["epochs", "total_steps"]),
    ("one_cycle", {"steps_per_epoch": 3}, ["steps_per_epoch", "total_steps"]),
    ("step", {"step_size": 3, "interval": "steps"}, ["interval", "'steps'", "Did you mean 'step'?", "step, epoch"]),
    ("step", {"step_size": 3, "warmup_steps": -1}, ["warmup_steps", "-1", "an integer >= 0"]),
    ("step", {"step_size": 3, "warmup_steps": 0.5}, ["warmup_steps", "0.5", "an integer >= 0"]),
    ("step", {"step_size": 3, "warmup_steps": None}, ["warmup_steps", "None", "warmup_steps: 0"]),
    ("warmup_cosine", {"total_steps": 0}, ["total_steps", "0", "an integer >= 1 or null"]),
    ("warmup_cosine", {"total_steps": "10"}, ["total_steps", "'10'", "text", "total_steps: 10 "]),
    ("step", {}, ["step_size", "step needs it", "an integer >= 1"]),
    ("exponential", {}, ["gamma", "exponential needs it", "a finite number > 0"]),
    ("multi_step", {}, ["milestones", "multi_step needs it", "an increasing list of positive integers"]),
    ("cyclic", {}, ["base_lr", "cyclic needs it", "a finite number >= 0"]),
    ("step", {"step_size": 0}, ["step_size", "0", "an integer >= 1"]),
    ("step", {"step_size": 3, "gamma": "x"}, ["gamma", "'x'", "a finite number > 0", "gamma: 0.1"]),
    ("multi_step", {"milestones": [5, 3]}, ["milestones", "[5, 3]", "an increasing list"]),
    ("linear", {"start_factor": 0}, ["start_factor", "0", "a finite number > 0 and <= 1"]),
    ("one_cycle", {"anneal_strategy": "cosine"}, ["anneal_strategy", "'cosine'", "cos, linear"]),
    ("noam", {}, ["warmup_steps", "noam", "warmup_steps: 4000"]),
    ("one_cycle", {"warmup_steps": 3}, ["warmup_steps", "one_cycle", "warmup_steps: 0"]),
    ("cyclic", {"base_lr": 0, "warmup_steps": 3}, ["warmup_steps", "cyclic", "warmup_steps: 0"]),
    ("reduce_on_plateau", {"warmup_steps": 3}, ["warmup_steps", "reduce_on_plateau", "warmup_steps: 0"]),
    ("chained", {"schedulers": [BLOCK], "warmup_steps": 3}, ["warmup_steps", "chained", "warmup_steps: 0"]),
    ("step", {"step_size": 3, "total_steps": 9}, ["total_steps", "step", "total_steps: null"]),
    ("chained", {"schedulers": [BLOCK], "total_steps": 9}, ["total_steps", "chained", "total_steps: null"]),
    ("cosine_annealing", {"T_max": 5, "total_steps": 9}, ["total_steps", "T_max: null", "total_steps: null"]),
    ("lambda", {}, ["lr_lambda", "SchedulerFactory('lambda', lr_lambda=...)"]),
    ("multiplicative", {"lr_lambda": "x"}, ["lr_lambda", "SchedulerFactory('multiplicative', lr_lambda=...)"]),
    ("chained", {}, ["schedulers", "None", "a list of blocks", "schedulers: [{name: linear,"]),
    ("chained", {"schedulers": []}, ["schedulers", "[]", "a list of blocks"]),
    ("chained", {"schedulers": ["linear"]}, ["schedulers", "['linear']", "a list of blocks"]),
    ("chained", {"schedulers": {"a": BLOCK}}, ["schedulers", "{'a': ", "a list of blocks"]),
    ("sequential", {"schedulers": [BLOCK, BLOCK]}, ["milestones", "sequential needs it", "an increasing list"]),
    ("sequential", {"schedulers": [BLOCK], "milestones": [5]}, ["milestones", "1 schedulers", "0 milestones"]),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "one_cycle"}], "milestones": [5]},
        ["schedulers[1].name", "one_cycle", "sequential"],
    ),
    (
        "chained",
        {"schedulers": [BLOCK, {"name": "reduce_on_plateau"}]},
        ["schedulers[1].name", "reduce_on_plateau", "chained"],
    ),
    ("chained", {"schedulers": [{**BLOCK, "interval": "epoch"}]}, ["schedulers[0].interval", "Move it"]),
    ("chained", {"schedulers": [BLOCK, {"name": "step"}]}, ["schedulers[1].step_size", "step needs it"]),
    ("chained", {"schedulers": [BLOCK, {"name": "stepp"}]}, ["schedulers[1].name", "'stepp'", "Did you mean 'step'?"]),
    ("chained", {"schedulers": [BLOCK, {"step_size": 3}]}, ["schedulers[1].name", "a block needs a name"]),
    (
        "sequential",
        {"schedulers": [BLOCK, NESTED], "milestones": [5]},
        ["schedulers[1].schedulers[1].step_size", "step needs it"],
    ),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG, ids=[" ".join([str(n), *given]) for n, given, _ in WRONG])
def test_wrong_config_is_refused_when_the_factory_is_created(name, given, said) -> None:
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(name, **given)
    check_message(caught, *said)


def test_factories_with_equal_arguments_are_equal() -> None:
    factory = SchedulerFactory("step", step_size=3)
    assert factory == SchedulerFactory("step", step_size=3) and hash(factory) == hash(
        SchedulerFactory("step", step_size=3)
    )
    assert factory != SchedulerFactory("step", step_size=4)
    assert repr(factory) == "SchedulerFactory('step', interval='step', warmup_steps=0, total_steps=None, step_size=3)"
