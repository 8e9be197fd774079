"""Resuming under an edited config: what counts as a difference, where the run is, and what no record says."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.save_and_load import save_and_load
from tests.support.scheduled_groups import SGD, WITH_MOMENTUM, build_factory, build_net, record_curves

SAVED_AT = 7
STEPS = 30
COSINE: dict[str, Any] = {"name": "warmup_cosine", "warmup_steps": 4}
BLOCKS = [{"name": "linear", "total_iters": 3}, {"name": "exponential", "gamma": 0.5}]
SEQUENTIAL: dict[str, Any] = {"name": "sequential", "schedulers": BLOCKS, "milestones": [5]}


def build(
    config: dict[str, Any] | None, steps: int = STEPS, algorithms: str = SGD, **overrides: Any
) -> tuple[Any, Any]:
    position = overrides.pop("position", None)
    optimizer = build_factory(algorithms, **overrides)(build_net())
    scheduler = None if config is None else SchedulerFactory(**config)(optimizer, steps, position=position)
    return optimizer, scheduler


def train(parts: tuple[Any, Any], first: int = 0, last: int = SAVED_AT) -> Any:
    return record_curves(*parts, first, last)


def save(*given: Any, **overrides: Any) -> list[dict[str, Any]]:
    parts = build(*given, **overrides)
    train(parts)
    return states_of(parts)


def states_of(parts: tuple[Any, Any]) -> list[dict[str, Any]]:
    return save_and_load([part.state_dict() for part in parts if part is not None])


def load(parts: tuple[Any, Any], saved: list[dict[str, Any]]) -> tuple[Any, Any]:
    for part, state in zip(parts, copy.deepcopy(saved), strict=False):
        if part is not None:
            part.load_state_dict(state)
    return parts


# What counts as a difference

EDITED = {
    "argument": ({**COSINE, "final_scale": 0.1}, STEPS, "final_scale: 0.0 -> 0.1"),
    "length": (COSINE, 60, "total_steps: 30 -> 60"),
    "warm-up": ({**COSINE, "warmup_steps": 0, "warmup_fraction": 0.2}, STEPS, "warmup_steps: 4 -> 6"),
    "interval": ({**COSINE, "interval": "epoch"}, STEPS, "interval: step -> epoch"),
    "name": ({"name": "exponential", "gamma": 0.9}, STEPS, "{name: warmup_cosine, warmup_steps: 4, total_steps: 30} -> "
             "{name: exponential, gamma: 0.9}"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "steps", "said"), EDITED.values(), ids=EDITED)
def test_a_difference_is_refused_with_both_values_and_the_ways_out(config, steps, said) -> None:
    with pytest.raises(ConfigError) as caught:
        load(build(config, steps), save(COSINE))
    for part in (said, "scheduler.on_resume: extend", "scheduler.on_resume: restart"):
        assert part in str(caught.value)


def test_a_difference_in_a_block_is_named_by_its_key() -> None:
    edited = {**SEQUENTIAL, "schedulers": [BLOCKS[0], {"name": "exponential", "gamma": 0.25}]}
    with pytest.raises(ConfigError, match=r"config\): schedulers\[1\]\.gamma: 0\.5 -> 0\.25\. "):
        load(build(edited), save(SEQUENTIAL))


def test_a_difference_reaches_the_rules_that_change_an_argument_of_the_schedule() -> None:
    with pytest.raises(ConfigError, match=r"total_steps: 30 -> 60; under schedule: \{warmup_steps: 9\}, total_steps"):
        load(build(COSINE, 60, neck={"warmup_steps": 9}), save(COSINE, neck={"warmup_steps": 9}))


SAME = {
    "a default written out": ({**COSINE, "final_scale": 0.0}, STEPS),
    "the length written out": ({**COSINE, "total_steps": STEPS}, 90),
    "the warm-up as a fraction": ({"name": "warmup_cosine", "warmup_fraction": 4 / 30}, STEPS),
    "another way to resume": ({**COSINE, "on_resume": "extend"}, STEPS),
}


@pytest.mark.parametrize(("config", "steps"), SAME.values(), ids=SAME)
def test_the_same_schedule_in_other_words_continues(config, steps) -> None:
    resumed = load(build(config, steps), save(COSINE))
    assert train(resumed, SAVED_AT, STEPS) == train(build(COSINE), last=STEPS)[SAVED_AT:]


def test_a_longer_run_is_no_difference_for_a_schedule_without_length() -> None:
    config = {"name": "exponential", "gamma": 0.9}
    resumed = load(build(config, 60), save(config))
    assert train(resumed, SAVED_AT, STEPS) == train(build(config), last=STEPS)[SAVED_AT:]


def test_groups_without_names_are_compared_too() -> None:
    def parts(config: dict[str, Any]) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.5)
        return optimizer, SchedulerFactory(**config)(optimizer, STEPS)

    saved = parts(COSINE)
    for part in saved:
        part.step()
    with pytest.raises(ConfigError, match=r"final_scale: 0\.0 -> 0\.1"):
        load(parts({**COSINE, "final_scale": 0.1}), states_of(saved))
    optimizer, scheduler = load(parts({**COSINE, "final_scale": 0.1, "on_resume": "extend"}), states_of(saved))
    assert optimizer.param_groups[0]["lr"] == 0.25 and scheduler.last_epoch == 1


# `extend` and `restart`


@pytest.mark.parametrize(("on_resume", "at"), [("extend", SAVED_AT), ("restart", 0)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["optimizer first", "scheduler first"])
@pytest.mark.parametrize("overrides", [{}, {"neck": {"warmup_steps": 9}}], ids=["one curve", "a rule's schedule"])
def test_the_new_curve_holds_at_once_for_every_group_and_momentum(on_resume, at, order, overrides) -> None:
    new = {**COSINE, "final_scale": 0.1}
    saved = save({"name": "one_cycle"}, algorithms=WITH_MOMENTUM)
    parts = build({**new, "on_resume": on_resume}, 60, WITH_MOMENTUM, **overrides)
    for index in order:
        parts[index].load_state_dict(saved[index])
    expected = train(build(new, 60, WITH_MOMENTUM, **overrides), last=STEPS)
    assert train(parts, at, STEPS) == expected[at:]
    assert "max_momentum" not in parts[0].param_groups[0]


def test_extend_takes_the_config_s_lr_as_the_peak_and_its_momentum() -> None:
    saved = save({"name": "one_cycle"})

    def parts(**given: Any) -> tuple[Any, Any]:
        optimizer = OptimizerFactory("sgd", lr=0.7, momentum=0.9)(build_net())
        return optimizer, SchedulerFactory(**COSINE, **given)(optimizer, 60)

    resumed = load(parts(on_resume="extend"), saved)
    assert train(resumed, SAVED_AT, STEPS) == train(parts(), last=STEPS)[SAVED_AT:]


def test_extend_past_the_end_of_one_cycle_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^total_steps: the run is past the end.* 5\. Type a larger total_steps"):
        load(build({"name": "one_cycle", "on_resume": "extend"}, 5), save(COSINE))


@pytest.mark.parametrize("given", [{}, {"position": lambda interval: 1 / 0}], ids=["unknown", "after a restart"])
def test_another_interval_is_refused_where_the_position_is_unknown(given) -> None:
    if given:  # the saved run has restarted, and nobody knew when
        parts = load(build({**COSINE, "on_resume": "restart"}), save(COSINE))
        saved = states_of(parts)
    else:
        saved = save(COSINE)
    with pytest.raises(ConfigError, match=r"^scheduler\.interval: .* Type scheduler\.interval: step, or .*restart"):
        load(build({**COSINE, "interval": "epoch", "on_resume": "extend"}, **given), saved)


def test_another_interval_is_counted_from_the_restart() -> None:
    restarted = load(build({**COSINE, "on_resume": "restart"}, position={"step": 7, "epoch": 2}.get), save(COSINE))
    train(restarted, 0, 9)
    later = {**COSINE, "interval": "epoch", "on_resume": "extend"}
    _, scheduler = load(build(later, position={"step": 16, "epoch": 5}.get), states_of(restarted))
    assert scheduler.last_epoch == 3


def test_groups_that_joined_after_the_scheduler_was_built_are_refused_another_schedule() -> None:
    optimizer, scheduler = build({**COSINE, "on_resume": "restart"})
    optimizer.add_param_group({"params": [("late.weight", nn.Parameter(torch.ones(3)))], "lr": 0.5, "name": "late"})
    with pytest.raises(ConfigError, match=r"^scheduler\.on_resume: param groups late joined .*on_resume: continue"):
        scheduler.load_state_dict(save(COSINE)[1])


# A schedule that was added or removed


def test_without_a_schedule_each_group_has_its_configured_values_again(caplog) -> None:
    optimizer, _ = load(build(None, algorithms=WITH_MOMENTUM), save({"name": "one_cycle"}, algorithms=WITH_MOMENTUM))
    assert train((optimizer, None)) == train(build(None, algorithms=WITH_MOMENTUM))
    assert not {"initial_lr", "max_momentum"} & optimizer.param_groups[0].keys()
    assert "its configured lr" in caplog.text


def test_a_plateau_that_has_reduced_the_lr_is_a_schedule_too() -> None:
    plateau = build({"name": "reduce_on_plateau", "patience": 0})
    for metric in (1.0, 2.0):
        plateau[0].step(), plateau[1].step(metric)
    optimizer, _ = load(build(None), states_of(plateau))
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.1, 0.05]


@pytest.mark.parametrize("on_resume", ["continue", "extend"])
def test_an_added_schedule_is_refused_at_the_next_step(on_resume) -> None:
    optimizer, _ = load(build({**COSINE, "on_resume": on_resume}), save(None)[:1])
    with pytest.raises(ConfigError, match=r"^scheduler.*saved without a schedule.* scheduler\.on_resume: restart"):
        optimizer.step()


@pytest.mark.parametrize(("on_resume", "at"), [("extend", SAVED_AT), ("restart", 0)])
def test_an_added_schedule_follows_on_resume(on_resume, at) -> None:
    parts = build({**COSINE, "on_resume": on_resume}, position={"step": SAVED_AT, "epoch": 1}.get)
    assert train(load(parts, save(None)[:1]), at, STEPS) == train(build(COSINE), last=STEPS)[at:]


def test_an_optimizer_that_is_rolled_back_alone_needs_no_schedule() -> None:
    """As Lightning's learning rate finder does."""
    parts = build(COSINE)
    load((parts[0], None), states_of(parts))
    assert train(parts) == train(build(COSINE))


# Edited groups


@pytest.mark.parametrize("saved_at", [1, SAVED_AT])
def test_a_rule_removed_under_a_schedule_that_cycles_momentum_leaves_no_trace(saved_at) -> None:
    def parts(rules: dict[str, Any]) -> tuple[Any, Any]:
        optimizer = OptimizerFactory("adamw", lr=0.1, groups=rules)(build_net())
        return optimizer, SchedulerFactory("one_cycle")(optimizer, STEPS)

    saved = parts({"head": {"params": "head", "betas": [0.8, 0.99]}})
    train(saved, last=saved_at)
    resumed = load(parts({}), states_of(saved))
    assert train(resumed, saved_at, STEPS) == train(parts({}), last=STEPS)[saved_at:]
    assert resumed[0].param_groups[0]["betas"][1] == 0.999


def test_a_plateau_s_lowest_lr_follows_an_edited_lr() -> None:
    def parts(lr: float) -> tuple[Any, Any]:
        optimizer = OptimizerFactory("sgd", lr=lr)(build_net())
        return optimizer, SchedulerFactory("reduce_on_plateau", final_scale=0.25)(optimizer)

    assert load(parts(0.5), states_of(parts(1.0)))[1].min_lrs == [0.125]


# No record


@pytest.mark.parametrize("make", [
    lambda optimizer: SchedulerFactory("exponential", gamma=0.9)(optimizer),
    lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
], ids=["an older version", "torch"])  # fmt: skip
def test_without_a_record_the_state_loads_as_it_was_saved_and_the_log_says_so(make, caplog) -> None:
    def parts(make: Any) -> tuple[Any, Any]:
        optimizer = OptimizerFactory("sgd", lr=0.4, momentum=0.9)(build_net())
        return optimizer, make(optimizer)

    saved = parts(make)
    train(saved)
    states = states_of(saved)
    states[1].pop("schedule", None)
    with caplog.at_level(logging.WARNING):
        resumed = load(parts(lambda optimizer: SchedulerFactory("exponential", gamma=0.8)(optimizer)), states)
    assert caplog.text.count("nothing could be compared") == 1
    assert train(resumed, SAVED_AT, STEPS) == train(saved, SAVED_AT, STEPS)
    assert "schedule" not in resumed[1].state_dict(), "what curve it is stays unknown"


def test_without_a_record_a_curve_with_other_arguments_is_refused() -> None:
    saved = save(COSINE)
    del saved[1]["schedule"]
    with pytest.raises(ConfigError, match=r"curve with warmup_steps, total_steps, final_scale, this run a Noam"):
        load(build({"name": "noam", "warmup_steps": 4}), saved)


def test_without_a_record_extend_takes_the_saved_step() -> None:
    saved = save({"name": "exponential", "gamma": 0.9})
    del saved[1]["schedule"]
    resumed = load(build({**COSINE, "on_resume": "extend"}), saved)
    assert train(resumed, SAVED_AT, STEPS) == train(build(COSINE), last=STEPS)[SAVED_AT:]


def test_a_factory_pickled_by_an_older_version_continues() -> None:
    factory = SchedulerFactory(**COSINE)
    for key in ("on_resume", "warmup_fraction", "warmup_epochs"):
        del vars(factory)[key]
    assert factory == SchedulerFactory(**COSINE)
    optimizer = build_factory(SGD)(build_net())
    load((optimizer, factory(optimizer, STEPS)), save(COSINE))
