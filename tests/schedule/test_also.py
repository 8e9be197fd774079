"""`also`: weight decay, momentum and betas over time equal their formulas at each step, and after every resume."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.save_and_load import save_and_load
from tests.support.schedules import step_scheduler

STEPS = 12
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
SCALED = {**NO_DECAY, "head": {"params": "1", "kinds": ["matrix"], "weight_decay_scale": 0.5}}
DECAY = {"weight_decay": {"name": "cosine", "final": 0.4}}
CONSTANT = {"name": "constant", "factor": 1.0}
WARMUP_COSINE = {"name": "warmup_cosine", "warmup_steps": 3}


def build(also: Any = None, schedule: Any = CONSTANT, **config: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    config = {"name": "adamw", "lr": 0.1, "weight_decay": 0.04, "groups": NO_DECAY, **config}
    optimizer = OptimizerFactory(**config)(net)
    return optimizer, None if schedule is None else SchedulerFactory(**schedule, also=also)(optimizer, STEPS)


def train(parts: tuple[Any, Any], first: int = 0, last: int = STEPS) -> list[Any]:
    """By step: each group's values, and a copy of its parameters after the step."""
    optimizer, scheduler = parts
    record = []
    for t in range(first, last):
        values = {
            g["name"]: (g["lr"], g["weight_decay"], g.get("betas", g.get("momentum")))
            for g in parameter_groups(optimizer)
        }
        for number, parameter in enumerate(parameters(optimizer)):
            parameter.grad = torch.sin(torch.arange(parameter.numel()).reshape(parameter.shape) + t + number)
        optimizer.step()
        if scheduler is not None:
            step_scheduler(scheduler, t)
        record.append((values, [parameter.detach().clone() for parameter in parameters(optimizer)]))
    return record


def parameter_groups(optimizer: Any) -> list[dict[str, Any]]:
    return optimizer.param_groups


def parameters(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def decays(record: list[Any], group: str = "default") -> list[float]:
    return [values[group][1] for values, _ in record]


def load(parts: tuple[Any, Any], saved: list[Any], weights: list[Tensor], order: tuple[int, ...] = (0, 1)) -> Any:
    for index in order:
        if parts[index] is not None:
            parts[index].load_state_dict(save_and_load(saved[index]))
    for parameter, weight in zip(parameters(parts[0]), weights, strict=True):
        parameter.data.copy_(weight)
    return parts


def save(parts: tuple[Any, Any], last: int) -> tuple[list[Any], list[Tensor]]:
    record = train(parts, 0, last)
    return [part.state_dict() for part in parts if part is not None], record[-1][1] if record else [
        parameter.detach().clone() for parameter in parameters(parts[0])
    ]


def cosine(start: float, final: float, length: int, steps: int = STEPS) -> list[float]:
    """DINO's `cosine_scheduler`, without its warm-up: https://github.com/facebookresearch/dino/blob/main/utils.py."""
    curve = [final + 0.5 * (start - final) * (1 + math.cos(math.pi * t / length)) for t in range(length)]
    return (curve + [final] * steps)[:steps]


def linear(start: float, final: float, length: int) -> list[float]:
    return [start + (final - start) * min(1.0, t / length) for t in range(STEPS)]


# The values at each step


CURVES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "cosine": ({"name": "cosine", "final": 0.4}, cosine(0.04, 0.4, STEPS)),
    "linear, shorter than the run": ({"name": "linear", "final": 0.0, "steps": 5}, linear(0.04, 0.0, 5)),
    "scales": ({"name": "linear", "start_scale": 0, "final_scale": 3}, linear(0.0, 0.12, STEPS)),
    "to the configured value": ({"name": "cosine", "start": 0.1, "steps": 7}, cosine(0.1, 0.04, 7)),
}


@pytest.mark.parametrize(("curve", "expected"), CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("schedule", [CONSTANT, WARMUP_COSINE], ids=["constant", "warmup_cosine"])
def test_weight_decay_is_the_formula_at_each_step_and_0_stays_0(curve, expected, schedule) -> None:
    record = train(build({"weight_decay": curve}, schedule))
    assert decays(record) == pytest.approx(expected, rel=1e-14, abs=1e-17)
    assert decays(record, "no_decay") == [0.0] * STEPS
    alone = train(build(None, schedule))
    assert [values["default"][0] for values, _ in record] == [values["default"][0] for values, _ in alone]


@pytest.mark.parametrize("implementation", ["torch", "own"])
def test_the_optimizer_steps_with_the_value_of_the_step(implementation) -> None:
    record = train(build(DECAY, implementation=implementation))
    optimizer, _ = by_hand = build(schedule=None, implementation=implementation)
    for t, ((_, weights), decay) in enumerate(zip(record, decays(record), strict=True)):
        optimizer.param_groups[0]["weight_decay"] = decay
        assert all(map(torch.equal, train(by_hand, t, t + 1)[0][1], weights))


def test_each_group_moves_from_its_own_value_by_scales() -> None:
    record = train(build({"weight_decay": {"name": "cosine", "final_scale": 10}}, groups=SCALED))
    assert decays(record) == pytest.approx(cosine(0.04, 0.4, STEPS), rel=1e-14)
    assert decays(record, "head") == pytest.approx(cosine(0.02, 0.2, STEPS), rel=1e-14)


def test_momentum_and_betas_of_one_optimizer_of_two_algorithms() -> None:
    also = {
        "momentum": {"name": "linear", "start": 0.85, "steps": 6},
        "beta1": {"name": "linear", "final": 0.8},
        "beta2": {"name": "cosine", "start": 0.9},
    }
    record = train(build(also, groups={"hidden": {"kinds": ["matrix"], "optimizer": "muon", "momentum": 0.95}}))
    assert [values["hidden"][2] for values, _ in record] == pytest.approx(linear(0.85, 0.95, 6), rel=1e-14)
    first, second = zip(*(values["default"][2] for values, _ in record), strict=True)
    assert list(first) == pytest.approx(linear(0.9, 0.8, STEPS), rel=1e-14)
    assert list(second) == pytest.approx(cosine(0.9, 0.999, STEPS), rel=1e-14)


def test_a_rule_s_schedule_of_lr_leaves_the_decay_on_its_curve() -> None:
    groups = {**NO_DECAY, "head": {"params": "1", "kinds": ["matrix"], "schedule": "constant"}}
    record = train(build(DECAY, WARMUP_COSINE, groups=groups))
    assert {values["head"][0] for values, _ in record} == {0.1}
    assert decays(record, "head") == decays(record) == pytest.approx(cosine(0.04, 0.4, STEPS), rel=1e-14)


def test_the_run_s_metric_still_reduces_the_lr() -> None:
    schedule = {"name": "reduce_on_plateau", "patience": 1, "monitor": "loss"}
    record = train(build(DECAY, schedule))
    assert decays(record) == pytest.approx(cosine(0.04, 0.4, STEPS), rel=1e-14)
    assert record[-1][0]["default"][0] < 0.1


def test_a_group_that_joins_later_is_on_its_curve() -> None:
    optimizer, scheduler = build({"weight_decay": {"name": "cosine", "final_scale": 10}})
    train((optimizer, scheduler), 0, 4)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "name": "late", "weight_decay": 0.02})
    record = train((optimizer, scheduler), 4)
    assert decays(record, "late") == pytest.approx(cosine(0.02, 0.2, STEPS)[4:], rel=1e-14)


# Resume


@pytest.mark.parametrize("at", [1, 5, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["optimizer first", "scheduler first"])
@pytest.mark.parametrize("implementation", ["torch", "own"])
def test_resumes_bitwise(at, order, implementation) -> None:
    also = {**DECAY, "beta1": {"name": "linear", "final": 0.8}}
    arguments = {"schedule": WARMUP_COSINE, "implementation": implementation}
    full = train(build(also, **arguments))
    resumed = train(load(build(also, **arguments), *save(build(also, **arguments), at), order), at)
    for (values, weights), (expected, others) in zip(resumed, full[at:], strict=True):
        assert values == expected
        assert all(map(torch.equal, weights, others))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["optimizer first", "scheduler first"])
def test_an_edited_decay_continues_on_its_own_curve(order) -> None:
    also = {"weight_decay": {"name": "cosine", "final_scale": 10}}
    edited = load(build(also, weight_decay=0.08), *save(build(also), 5), order)
    assert decays(train(edited, 5)) == pytest.approx(cosine(0.08, 0.8, STEPS)[5:], rel=1e-14)


def test_a_scheduler_that_is_built_after_the_load_has_the_same_curve() -> None:
    saved, weights = save(build(DECAY), 5)
    optimizer, _ = load(build(schedule=None), [saved[0]], weights, order=(0,))
    optimizer.param_groups[0]["weight_decay"] = 0.3  # that of its step, as a load by torch leaves it
    scheduler = SchedulerFactory(**CONSTANT, also=DECAY)(optimizer, STEPS)
    scheduler.load_state_dict(save_and_load(saved[1]))
    assert decays(train((optimizer, scheduler), 5)) == pytest.approx(cosine(0.04, 0.4, STEPS)[5:], rel=1e-14)


def test_another_curve_is_refused_with_both_values() -> None:
    other = {"weight_decay": {"name": "cosine", "final": 0.2}}
    for also, said in (
        (other, r"also\.weight_decay\.final: 0\.4 -> 0\.2"),
        (None, r"also\.weight_decay: \{name: cosine, final: 0\.4, steps: 12\} -> none"),
    ):
        with pytest.raises(ConfigError, match=rf"scheduler: .*{said}.*on_resume: extend"):
            load(build(also), *save(build(DECAY), 5))
    with pytest.raises(ConfigError, match=r"also\.weight_decay: none -> \{name: cosine"):
        load(build(DECAY), *save(build(), 5))


@pytest.mark.parametrize(("on_resume", "at"), [("extend", 5), ("restart", 0)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["optimizer first", "scheduler first"])
def test_another_curve_is_followed_where_on_resume_says_so(on_resume, at, order) -> None:
    schedule = {**CONSTANT, "on_resume": on_resume}
    other = {"weight_decay": {"name": "linear", "final": 0.2}}
    record = train(load(build(other, schedule), *save(build(DECAY), 5), order), 0, STEPS - at)
    assert decays(record) == pytest.approx(linear(0.04, 0.2, STEPS)[at:], rel=1e-14)
    added = train(load(build(other, schedule), *save(build(), 5), order), 0, 2)
    assert decays(added) == pytest.approx(linear(0.04, 0.2, STEPS)[at : at + 2], rel=1e-14)
    removed = train(load(build(None, schedule), *save(build(DECAY), 5), order), 0, 2)
    assert decays(removed) == [0.04, 0.04]


def test_without_the_schedule_each_group_continues_at_its_configured_decay() -> None:
    resumed = load(build(schedule=None), *save(build(DECAY), 5), order=(0,))
    assert decays(train(resumed, 0, 2)) == [0.04, 0.04]


# What is refused

REFUSED: dict[str, tuple[Any, str]] = {
    "no mapping": (3, r"^also: got 3, which is not a mapping\. Type for example also: \{weight_decay"),
    "unknown value": ({"wieght_decay": {}}, r"^also\.wieght_decay: a schedule cannot set wieght_decay\..*weight_decay"),
    "lr": ({"lr": {}}, r"^also\.lr: the schedule itself sets the lr"),
    "betas": ({"betas": {}}, r"^also\.betas: .* Type also\.beta1"),
    "no curve": ({"weight_decay": 0.4}, r"^also\.weight_decay: got 0\.4, .*\{name: cosine, final: 0\.4\}"),
    "no name": ({"weight_decay": {"final": 1}}, r"^also\.weight_decay\.name: a curve needs a name\."),
    "unknown name": ({"weight_decay": {"name": "cosin", "final": 1}}, r"^also\.weight_decay\.name: there .*cosine"),
    "unknown argument": ({"beta1": {"name": "linear", "finl": 1}}, r"^also\.beta1\.finl: a curve has no .*final"),
    "nowhere to go": ({"weight_decay": {"name": "linear"}}, r"^also\.weight_decay\.final: .*final_scale: 10"),
    "two ends": ({"weight_decay": {"name": "linear", "final": 1, "final_scale": 2}}, r"^also\.weight_decay\.final_sc"),
    "negative": ({"weight_decay": {"name": "linear", "final": -1}}, r"^also\.weight_decay\.final: got -1"),
    "beta of 1": ({"beta1": {"name": "linear", "final": 1}}, r"^also\.beta1\.final: got 1"),
    "text": ({"weight_decay": {"name": "linear", "final": "0.4"}}, r"^also\.weight_decay\.final: got '0\.4', .* text"),
    "no steps": ({"weight_decay": {"name": "linear", "final": 1, "steps": 0}}, r"^also\.weight_decay\.steps: got 0"),
}  # fmt: skip


def test_wrong_values_are_refused_by_key_when_the_factory_is_made() -> None:
    for also, message in REFUSED.values():
        with pytest.raises(ConfigError, match=message):
            SchedulerFactory("constant", also=also)


def test_what_does_not_fit_the_groups_is_refused_by_key() -> None:
    for also, config, message in (
        (DECAY, {"groups": SCALED}, r"^also\.weight_decay\.final: .* 0\.04 in .* 0\.02 in .*_decay\.final_scale: 10"),
        (DECAY, {"weight_decay": 0}, r"^also\.weight_decay: .*0 in every param group.* optimizer\.weight_decay: 0\.04"),
        ({"momentum": {"name": "linear", "final": 0.5}}, {}, r"^also\.momentum: no param .* Type also\.beta1"),
        ({"beta1": {"name": "linear", "final_scale": 1.2}}, {}, r"^also\.beta1: 1\.08 in .* not below 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            build(also, **config)


def test_a_schedule_that_cycles_the_same_momentum_is_refused() -> None:
    also = {"beta1": {"name": "linear", "final": 0.8}}
    for schedule, rule in (({"name": "one_cycle"}, {}), (CONSTANT, {"schedule": "one_cycle"})):
        groups = {**NO_DECAY, "head": {"params": "1", "kinds": ["matrix"], "lr": 0.2, **rule}}
        with pytest.raises(
            ConfigError, match=r"cycle_momentum: one_cycle cycles .*also\.beta1 .*cycle_momentum: false"
        ):
            build(also, schedule, groups=groups)
    build(also, {"name": "one_cycle", "cycle_momentum": False})
    build(DECAY, {"name": "one_cycle"})


def test_only_the_schedule_of_the_run_takes_it() -> None:
    with pytest.raises(ConfigError, match=r"^groups\.head\.schedule\.also: .* the scheduler's config"):
        OptimizerFactory("adamw", groups={"head": {"params": "head", "schedule": {"also": DECAY}}})
    blocks = [{**CONSTANT, "also": DECAY}, {"name": "linear"}]
    with pytest.raises(ConfigError, match=r"^schedulers\[0\]\.also: "):
        SchedulerFactory("sequential", schedulers=blocks, milestones=[3])


def test_a_curve_as_long_as_the_run_needs_its_length() -> None:
    factory = SchedulerFactory(**CONSTANT, also=DECAY)
    optimizer = build(schedule=None)[0]
    assert factory.needs_total_steps_for(optimizer)
    assert not SchedulerFactory(**CONSTANT, also=DECAY, total_steps=9).needs_total_steps_for(optimizer)
    with pytest.raises(ConfigError, match=r"scheduler\.total_steps: also needs the length of the run"):
        factory(optimizer)
