"""Loading by name under a scheduler: each group continues at its position on the curve, and changed groups join it."""

from __future__ import annotations

import copy

import pytest
from torch.optim import SGD, lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from tests.support.cases import each_value, every
from tests.support.equality import equal
from tests.support.loading_runs import (
    CHANGES,
    NEW_GROUPS,
    SAVED,
    SCHEDULED,
    assert_refused,
    build,
    build_factory,
    run,
    step,
    train_saved,
    values_by_name,
)
from tests.support.models import Deep, weights_of
from tests.support.save_and_load import save_and_load
from tests.support.schedules import SCHEDULE_CONFIGS, step_scheduler

COMPOSITE = "muon + adamw"
NUM_SAVED_STEPS = 9
NUM_STEPS = 24
# Their lrs do not scale with the peak: other terms of their formulas are absolute.
ABSOLUTE = ("cosine_annealing", "cosine_annealing_warm_restarts", "cyclic", "reduce_on_plateau")
SCALING = [name for name, given in SCHEDULE_CONFIGS.items() if given["name"] not in ABSOLUTE]
# One class with momentum, several classes with momentum and betas; betas alone matter where a schedule cycles them.
SCHEDULE_CASES = [(config, schedule) for config in ("torch sgd", COMPOSITE) for schedule in SCHEDULE_CONFIGS]
SCHEDULE_CASES += [("own nadamw", schedule) for schedule in ("one_cycle", "cyclic")]
SCALING_CASES = [case for case in SCHEDULE_CASES if case[1] in SCALING]
FAST_SCALING_CASES = [f"{COMPOSITE}-{schedule}" for schedule in ("one_cycle", "warmup_cosine", "sequential")]
FAST_SCALING_CASES += ["torch sgd-exponential", "own nadamw-one_cycle"]


def ids(case):
    return "-".join(case)


def tick(optimizer, scheduler, t):
    """A step without gradients: it changes only what the scheduler sets."""
    optimizer.step()
    step_scheduler(scheduler, t)


def start(config, rules, schedule, num_steps=0):
    """A model, its optimizer and its scheduler after some steps without gradients."""
    model = Deep()
    optimizer = build_factory(config, rules)(model)
    scheduler = SchedulerFactory(**SCHEDULE_CONFIGS[schedule])(optimizer, 60)
    for t in range(num_steps):
        tick(optimizer, scheduler, t)
    return model, optimizer, scheduler


def resume(config, rules, schedule, state_dicts):
    """A model, its optimizer and its scheduler that have loaded the state dicts of others."""
    model, optimizer, scheduler = start(config, rules, schedule)
    optimizer.load_state_dict(copy.deepcopy(state_dicts[0]))
    scheduler.load_state_dict(copy.deepcopy(state_dicts[1]))
    return model, optimizer, scheduler


@pytest.mark.parametrize(
    ("config", "schedule"),
    each_value(
        SCHEDULE_CASES,
        fast=[
            *(f"{COMPOSITE}-{name}" for name in ("one_cycle", "warmup_cosine", "reduce_on_plateau", "chained")),
            "torch sgd-warmup+sequential",
            "own nadamw-cyclic",
        ],
        id=ids,
    ),
)
def test_training_under_a_scheduler_continues_bitwise_where_no_value_changes(config, schedule):
    factory, model = SchedulerFactory(**SCHEDULE_CONFIGS[schedule]), Deep()
    optimizer = build_factory(config, SAVED)(model)
    scheduler = factory(optimizer, 60)
    run(model, optimizer, 0, NUM_SAVED_STEPS, scheduler)
    saved = save_and_load([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    expected = []
    for t in range(NUM_SAVED_STEPS, 19):
        expected.append((values_by_name(model, optimizer, *SCHEDULED), weights_of(model)))
        step(model, optimizer, scheduler, t)
    for change in NEW_GROUPS:
        resumed_model = Deep()
        resumed = build(config, change, resumed_model)
        resumed_scheduler = factory(resumed, 60)
        for part, state in zip((resumed_model, resumed, resumed_scheduler), saved, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        assert resumed_scheduler.get_last_lr() == [group["lr"] for group in resumed.param_groups], change
        for t, (values, weights) in enumerate(expected, start=NUM_SAVED_STEPS):
            assert values_by_name(resumed_model, resumed, *SCHEDULED) == values, (change, t)
            assert equal(weights_of(resumed_model), weights), (change, t)
            step(resumed_model, resumed, resumed_scheduler, t)


# Changed groups. The reference is a run that had the new rules from the start.


def assert_follows_the_new_rules_from_the_start(config, schedule, old, new, *, rel=None):
    """After the edit, every step has the lrs (to `rel`; None: exactly), betas and momenta of the reference."""
    _, optimizer, scheduler = start(config, old, schedule, NUM_SAVED_STEPS)
    state_dicts = save_and_load([optimizer.state_dict(), scheduler.state_dict()])
    model, resumed, resumed_scheduler = resume(config, new, schedule, state_dicts)
    reference_model, reference, reference_scheduler = start(config, new, schedule, NUM_SAVED_STEPS)
    for t in range(NUM_SAVED_STEPS, NUM_STEPS):
        values = values_by_name(model, resumed, *SCHEDULED)
        for name, (lr, *cycled) in values_by_name(reference_model, reference, *SCHEDULED).items():
            assert values[name] == [lr if rel is None else pytest.approx(lr, rel=rel), *cycled], (t, name)
        tick(resumed, resumed_scheduler, t), tick(reference, reference_scheduler, t)


@pytest.mark.parametrize(("config", "schedule"), each_value(SCALING_CASES, fast=FAST_SCALING_CASES, id=ids))
def test_a_group_whose_peak_was_0_gets_the_lr_of_its_schedule(config, schedule):
    """An lr of 0 is no fraction of a peak of 0."""
    old = {"stem": SAVED["stem"], "norm": {"params": "backbone.1", "lr_scale": 0.0}}
    assert_follows_the_new_rules_from_the_start(config, schedule, old, SAVED, rel=1e-14)


@pytest.mark.parametrize(("config", "schedule"), each_value(SCALING_CASES, fast=FAST_SCALING_CASES, id=ids))
def test_a_new_group_joins_the_curve_where_the_run_is(config, schedule):
    # The fraction of the peak is rounded once: hence the tolerance.
    assert_follows_the_new_rules_from_the_start(config, schedule, SAVED, CHANGES["added"], rel=1e-14)


@pytest.mark.parametrize(("config", "schedule"), each_value(SCALING_CASES, fast=FAST_SCALING_CASES, id=ids))
def test_an_edited_lr_continues_at_the_same_fraction_of_its_new_peak(config, schedule):
    model, optimizer, scheduler = start(config, SAVED, schedule, NUM_SAVED_STEPS)
    state_dicts = save_and_load([optimizer.state_dict(), scheduler.state_dict()])
    expected = []
    for t in range(NUM_SAVED_STEPS, NUM_STEPS):
        expected.append(values_by_name(model, optimizer, *SCHEDULED))
        tick(optimizer, scheduler, t)
    for change in ("same", "renamed", "split"):
        rules = copy.deepcopy(CHANGES[change])
        rules["first" if change == "renamed" else "stem"]["lr_scale"] = 1.0  # it was 0.5
        resumed_model, resumed, resumed_scheduler = resume(config, rules, schedule, state_dicts)
        for t, values in enumerate(expected, start=NUM_SAVED_STEPS):
            found = values_by_name(resumed_model, resumed, *SCHEDULED)
            for name, (lr, *cycled) in values.items():
                scaled = 2 * lr if name.startswith("backbone.0") else lr
                # The fraction of the peak is rounded once: hence the tolerance.
                assert found[name] == [pytest.approx(scaled, rel=1e-14), *cycled], (change, t, name)
            tick(resumed, resumed_scheduler, t)


# A rule's `schedule:` that is added, removed or replaced

OVERRIDES = {
    "constant added": ({}, {"schedule": "constant"}),
    "constant removed": ({"schedule": "constant"}, {}),
    "warm-up added": ({}, {"schedule": {"warmup_steps": 5}}),
    "exponential added": ({}, {"schedule": {"name": "exponential", "gamma": 0.75}}),
    "exponential removed": ({"schedule": {"name": "exponential", "gamma": 0.75}}, {}),
    "constant replaced": ({"schedule": "constant"}, {"schedule": {"name": "exponential", "gamma": 0.75}}),
}
WITHOUT_WARMUP = ("cyclic", "one_cycle", "chained", "reduce_on_plateau")
OVERRIDE_CASES = [
    (schedule, override)
    for schedule, given in SCHEDULE_CONFIGS.items()
    for override in OVERRIDES
    if given["name"] not in WITHOUT_WARMUP
]
FAST_OVERRIDE_CASES = [
    *(f"warmup_cosine-{override}" for override in OVERRIDES),
    "warmup+step-constant removed",
    "cosine_annealing_warm_restarts-constant removed",
    "sequential-warm-up added",
]


@pytest.mark.parametrize(("schedule", "override"), each_value(OVERRIDE_CASES, fast=FAST_OVERRIDE_CASES, id=ids))
def test_a_group_with_another_schedule_is_where_that_schedule_would_be(schedule, override):
    old, new = ({**SAVED, "late": {"params": "head", "weight_decay": 0.25, **given}} for given in OVERRIDES[override])
    assert_follows_the_new_rules_from_the_start(COMPOSITE, schedule, old, new)


def test_a_group_with_another_decay_keeps_its_position_in_the_cycle():
    factory = SchedulerFactory("one_cycle", total_steps=60)
    model, resumed_model = Deep(), Deep()
    optimizer = build_factory("torch adamw", SAVED)(model)
    scheduler = factory(optimizer)
    run(model, optimizer, 0, NUM_SAVED_STEPS, scheduler)
    assert optimizer.param_groups[0]["betas"][0] not in (0.9, 0.95, 0.85)
    resumed = build_factory("torch adamw", {**SAVED, "norm": {**SAVED["norm"], "weight_decay": 0.25}})(resumed_model)
    resumed_scheduler = factory(resumed)
    resumed.load_state_dict(optimizer.state_dict())
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    keys = ("lr", "betas", "max_momentum", "base_momentum", "initial_lr", "max_lr", "min_lr")
    assert values_by_name(resumed_model, resumed, *keys) == values_by_name(model, optimizer, *keys)
    assert values_by_name(resumed_model, resumed, "weight_decay")["backbone.1.bias"] == [0.25]


# Schedulers that no SchedulerFactory built


@pytest.mark.parametrize("change", ["added", "renamed", "split", "merged", "reordered"])
@pytest.mark.parametrize("config", every(["torch adamw", COMPOSITE], fast=[COMPOSITE]))
def test_a_hand_made_scheduler_over_changed_groups_is_refused(config, change):
    model, resumed_model = Deep(), Deep()
    optimizer = build_factory(config, SAVED)(model)
    run(model, optimizer, 0, 4, lr_scheduler.CosineAnnealingLR(optimizer, 60))
    resumed = build(config, change, resumed_model)
    lr_scheduler.CosineAnnealingLR(resumed, 60)
    assert_refused(resumed_model, resumed, optimizer.state_dict(), "scheduler: ", "lightning_optim.SchedulerFactory")


@pytest.mark.parametrize("config", every(["torch adamw", COMPOSITE], fast=[COMPOSITE]))
def test_a_hand_made_scheduler_over_the_same_groups_continues(config):
    model, resumed_model = Deep(), Deep()
    optimizer = build_factory(config, SAVED)(model)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 60)
    run(model, optimizer, 0, 4, scheduler)
    resumed_model.load_state_dict(model.state_dict())
    resumed = build_factory(config, SAVED)(resumed_model)
    resumed_scheduler = lr_scheduler.CosineAnnealingLR(resumed, 60)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    resumed_scheduler.load_state_dict(save_and_load(scheduler.state_dict()))
    assert equal(run(resumed_model, resumed, 4, 9, resumed_scheduler), run(model, optimizer, 4, 9, scheduler))


HAND_MADE = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 0.9**t),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
}


@pytest.mark.parametrize("config", every(["torch adamw", COMPOSITE], fast=[COMPOSITE]))
@pytest.mark.parametrize("make", HAND_MADE.values(), ids=HAND_MADE)
def test_a_hand_made_scheduler_with_an_edited_lr_is_refused_with_both_lrs(config, make):
    """It has a list of peaks of its own, and would restore the old one."""
    model, resumed_model = Deep(), Deep()
    optimizer = build_factory(config, SAVED)(model)
    run(model, optimizer, 0, 4, make(optimizer))
    edited = {**SAVED, "stem": {"params": "backbone.0", "lr_scale": 0.25}}
    resumed = build_factory(config, edited)(resumed_model)
    make(resumed)
    parts = ("scheduler: ", "stem (lr 0.02)", "stem (lr 0.01)", "SchedulerFactory")
    assert_refused(resumed_model, resumed, optimizer.state_dict(), *parts)


def test_the_state_of_another_schedule_is_refused_with_both_names():
    _, optimizer = train_saved("torch adamw")
    state_dict = SchedulerFactory("cosine_annealing", T_max=10)(optimizer).state_dict()
    scheduler = SchedulerFactory("exponential", gamma=0.5)(build_factory("torch adamw", SAVED)(Deep()))
    before = copy.deepcopy(scheduler.state_dict())
    with pytest.raises(ConfigError, match=r"^scheduler: .*name: cosine_annealing, T_max: 10.*name: exponential"):
        scheduler.load_state_dict(state_dict)
    assert scheduler.state_dict() == before


def test_a_scheduler_state_without_names_loads_by_position_where_the_number_of_groups_is_the_same():
    """As from torch's own scheduler, before a run changed to ours."""
    _, optimizer = train_saved("torch adamw")
    state_dict = lr_scheduler.ExponentialLR(SGD(Deep().parameters(), lr=1.0), 0.5).state_dict()
    with pytest.raises(ConfigError, match=r"^scheduler: .*ExponentialLR.* 3: stem, norm, default"):
        SchedulerFactory("exponential", gamma=0.5)(optimizer).load_state_dict(state_dict)
    scheduler = SchedulerFactory("exponential", gamma=0.5)(OptimizerFactory("adamw")(Deep()))
    scheduler.load_state_dict({**state_dict, "last_epoch": 7})
    assert scheduler.last_epoch == 7
