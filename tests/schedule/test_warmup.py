"""The length of a warm-up in steps, as a fraction of the run or in epochs; a lowest lr as a fraction of the peak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.messages import check_message, check_refusals
from tests.support.models import Tiny


def build_optimizer(**groups: Any) -> torch.optim.Optimizer:
    rules = {"head": {"params": "head", "lr_scale": 0.1, **groups}}
    return OptimizerFactory("sgd", lr=0.5, groups=rules)(Tiny())


def lrs(scheduler: Any, num_steps: int = 20) -> list[list[float]]:
    found = []
    for _ in range(num_steps):
        found.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


SAME_AS_5_STEPS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"warmup_fraction": 0.25}, {}),
    ({"warmup_epochs": 1}, {"steps_per_epoch": 5}),
    ({"warmup_epochs": 0.5}, {"steps_per_epoch": 10}),
    ({"warmup_epochs": 5, "interval": "epoch"}, {}),
]


@pytest.mark.parametrize("name", ["warmup_cosine", "cosine_annealing", "noam"])
@pytest.mark.parametrize(("given", "known"), SAME_AS_5_STEPS, ids=[str(given) for given, _ in SAME_AS_5_STEPS])
def test_a_warmup_is_the_same_in_every_unit(name, given, known) -> None:
    expected = SchedulerFactory(name, warmup_steps=5)(build_optimizer(), 20)
    assert lrs(SchedulerFactory(name, **given)(build_optimizer(), 20, **known)) == lrs(expected)


@pytest.mark.parametrize("given", [{"warmup_fraction": 0.5}, {"warmup_epochs": 2}], ids=str)
def test_a_rule_s_warmup_replaces_the_run_s_whatever_its_unit(given) -> None:
    factory = SchedulerFactory("warmup_cosine", warmup_steps=5)
    found = lrs(factory(build_optimizer(schedule=given), 20, steps_per_epoch=5))
    alone = lrs(SchedulerFactory("warmup_cosine", warmup_steps=10)(build_optimizer(), 20))
    head = [group["name"] for group in build_optimizer().param_groups].index("head")
    assert [values[head] for values in found] == [values[head] for values in alone]


def test_a_fraction_of_a_short_run_is_one_step_at_least() -> None:
    assert SchedulerFactory("noam", warmup_fraction=0.01)(build_optimizer(), 5).lr_lambdas[0].warmup_steps == 1


def test_what_a_warmup_needs_to_know() -> None:
    optimizer = build_optimizer()
    assert SchedulerFactory("noam", warmup_fraction=0.1).needs_total_steps_for(optimizer)
    assert not SchedulerFactory("noam", warmup_fraction=0.1, total_steps=9).needs_total_steps_for(optimizer)
    assert SchedulerFactory("noam", warmup_epochs=1).needs_steps_per_epoch_for(optimizer)
    assert not SchedulerFactory("noam", warmup_epochs=1, interval="epoch").needs_steps_per_epoch_for(optimizer)
    assert SchedulerFactory("linear").needs_steps_per_epoch_for(build_optimizer(schedule={"warmup_epochs": 1}))


def make(name: str, **given: Any) -> Any:
    return lambda: SchedulerFactory(name, **given)(build_optimizer(), 20)


def test_wrong_warmups_are_refused() -> None:
    blocks = [{"name": "linear", "warmup_fraction": 0.1}, {"name": "linear"}]
    check_refusals({
        "two units": (make("noam", warmup_steps=5, warmup_epochs=1), "warmup_epochs", ["5", "warmup_steps: 0"]),
        "a fraction as steps": (make("noam", warmup_steps=0.1), "warmup_steps", ["0.1", "warmup_fraction: 0.1"]),
        "a fraction of 1": (make("noam", warmup_fraction=1.0), "warmup_fraction", ["1.0", "< 1"]),
        "part of an epoch": (
            make("noam", warmup_epochs=1.5, interval="epoch"), "warmup_epochs", ["1.5", "warmup_epochs: 2"]
        ),
        "unknown epoch": (make("noam", warmup_epochs=1), "warmup_epochs", ["warmup_steps: 500", "configure_opt"]),
        "unknown run": (
            lambda: SchedulerFactory("noam", warmup_fraction=0.1)(build_optimizer()), "scheduler.total_steps",
            ["warmup_fraction", "total_steps: 1000"],
        ),
        "too long": (make("linear", warmup_epochs=25, interval="epoch"), "warmup_epochs", ["25", "20 steps"]),
        "not taken": (make("one_cycle", warmup_fraction=0.1), "warmup_fraction", ["one_cycle", "_fraction: null"]),
        "in a block": (
            make("sequential", schedulers=blocks, milestones=[5]), "schedulers[0].warmup_fraction", ["warmup_steps"]
        ),
        "on_resume in a block": (
            make("chained", schedulers=[{"name": "linear", "on_resume": "extend"}]), "schedulers[0].on_resume", ["Move"]
        ),
        "unknown on_resume": (make("linear", on_resume="extended"), "on_resume", ["'extended'", "'extend'?"]),
        "on_resume in a rule": (
            lambda: build_optimizer(schedule={"on_resume": "extend"}), "groups.head.schedule.on_resume", ["all groups"]
        ),
        "two units in a rule": (
            lambda: build_optimizer(schedule={"warmup_steps": 3, "warmup_epochs": 1}),
            "groups.head.schedule.warmup_epochs",
            ["warmup_steps: 0"],
        ),
    })  # fmt: skip


# A lowest lr

FLOORS: list[tuple[str, dict[str, Any]]] = [
    ("cosine_annealing", {"eta_min": 0.06}),
    ("cosine_annealing_warm_restarts", {"T_0": 5, "eta_min": 0.06}),
    ("reduce_on_plateau", {"min_lr": 0.06}),
    ("cosine_annealing", {"eta_min": 0.06, "warmup_steps": 3}),
]


@pytest.mark.parametrize(("name", "given"), FLOORS, ids=[f"{name} {given}" for name, given in FLOORS])
def test_a_lowest_lr_above_a_group_s_own_is_refused_with_a_fraction_offered(name, given) -> None:
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(name, **given)(build_optimizer(), 20)
    key = "min_lr" if "min_lr" in given else "eta_min"
    check_message(caught, key, "0.06", "0.05", "'head'", "final_scale: 0.01", f"{key}: 0.005")


def test_a_lowest_lr_in_a_block_or_a_rule_is_located() -> None:
    block = {"name": "cosine_annealing", "eta_min": 0.06}
    check_refusals({
        name: (make(name, schedulers=[{"name": "linear"}, block], **more), "schedulers[1].eta_min", ["'head'"])
        for name, more in (("sequential", {"milestones": [5]}), ("chained", {}))
    } | {
        "rule": (
            lambda: SchedulerFactory("linear")(build_optimizer(schedule=block), 20),
            "schedule.eta_min",
            ["'head'", "rule"],
        ),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "cls"),
    [
        ("cosine_annealing", {"T_max": 6}, lr_scheduler.CosineAnnealingLR),
        ("cosine_annealing_warm_restarts", {"T_0": 4, "T_mult": 1}, lr_scheduler.CosineAnnealingWarmRestarts),
        ("cosine_annealing_warm_restarts", {"T_0": 3, "T_mult": 2}, lr_scheduler.CosineAnnealingWarmRestarts),
    ],
)
def test_a_lowest_lr_as_a_fraction_is_torch_s_curve_for_each_group(name, given, cls) -> None:
    found = lrs(SchedulerFactory(name, final_scale=0.25, **given)(build_optimizer()))
    for index, group in enumerate(build_optimizer().param_groups):
        alone = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=group["lr"])
        theirs = [lr for (lr,) in lrs(cls(alone, eta_min=0.25 * group["lr"], **given))]
        # torch's recursion rounds at each step.
        assert [values[index] for values in found] == pytest.approx(theirs, rel=1e-13)


def test_a_plateau_s_lowest_lr_as_a_fraction_is_each_group_s_own() -> None:
    scheduler = SchedulerFactory("reduce_on_plateau", final_scale=0.5)(build_optimizer())
    assert scheduler.min_lrs == [0.5 * group["lr"] for group in scheduler.optimizer.param_groups]


def test_a_fraction_beside_a_lowest_lr_is_refused() -> None:
    check_refusals({
        "both": (make("cosine_annealing", eta_min=0.01, final_scale=0.1), "final_scale", ["eta_min: 0"]),
        "chained": (
            make("chained", schedulers=[{"name": "cosine_annealing", "final_scale": 0.1}]), "schedulers[0].final_scale",
            ["chained"],
        ),
    })  # fmt: skip
