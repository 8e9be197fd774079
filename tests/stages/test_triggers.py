"""Triggers: when each is due, what is known of it before the run, and how it reads in words."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_optim.stages.trigger_config import parse_each, parse_trigger
from lightning_optim.stages.triggers import Clock, ThawTime, Trigger

PLATEAU = {"monitor": "val/loss", "patience": 2}


def trigger_of(at: Any) -> Trigger:
    return parse_trigger(at, "stages.x.at")


def next_layer(each: Any) -> Trigger:
    return parse_each(each, "stages.x.each")("x.3")


def clock(*, total_steps: int = 40, **now: Any) -> Clock:
    """A position in a run of 40 steps; `step` says which fraction of it is done, too."""
    return Clock(**{"epoch": 0, "step": 0, "fraction": now.get("step", 0) / total_steps, **now})


# When it is due


@pytest.mark.parametrize(
    ("trigger", "unit", "first"),
    [
        pytest.param(trigger_of({"epoch": 3}), "epoch", 3, id="epoch"),
        pytest.param(trigger_of({"step": 7}), "step", 7, id="step"),
        pytest.param(trigger_of({"fraction": 0.25}), "step", 10, id="fraction"),
        pytest.param(trigger_of({"after": {"epochs": 2}}), "epoch", 6, id="after epochs"),
        pytest.param(trigger_of({"after": {"steps": 2}}), "step", 11, id="after steps"),
        pytest.param(next_layer({"epochs": 1}), "epoch", 5, id="each by epochs"),
        pytest.param(next_layer({"steps": 1}), "step", 10, id="each by steps"),
        pytest.param(trigger_of({"any": [{"step": 30}, {"step": 20}]}), "step", 20, id="any"),
    ],
)
def test_trigger_is_due_from_a_position_on(trigger, unit, first) -> None:
    """Also at 1000: a trigger that is checked late still fires."""
    due = {now: trigger.is_due(clock(previous_thaw=ThawTime(4, 9), **{unit: now})) for now in (*range(40), 1000)}
    assert due == {now: now >= first for now in due}


@pytest.mark.parametrize(
    ("at", "elsewhere"),
    [
        ({"epoch": 3}, {"epoch": 2, "step": 1000}),
        ({"step": 7}, {"epoch": 1000, "step": 6}),
        ({"fraction": 0.25}, {"epoch": 1000, "step": 9}),
        ({"after": {"epochs": 2}}, {"epoch": 5, "step": 1000}),
        ({"after": {"steps": 2}}, {"epoch": 1000, "step": 10}),
    ],
    ids=["epoch", "step", "fraction", "after epochs", "after steps"],
)
def test_trigger_by_epoch_ignores_steps_and_trigger_by_step_ignores_epochs(at, elsewhere) -> None:
    assert not trigger_of(at).is_due(clock(previous_thaw=ThawTime(4, 9), **elsewhere))


@pytest.mark.parametrize("total", [100, 300, 4700, 100_000, 10_000_000])
def test_percentage_of_steps_is_due_at_exactly_that_step(total) -> None:
    """0.07 * 100 is 7.000000000000001, 0.57 * 100 is 56.99999999999999."""
    for percent in range(1, 100):
        trigger, step = trigger_of({"fraction": percent / 100}), percent * total // 100
        around = [trigger.is_due(clock(step=now, total_steps=total)) for now in (step - 1, step, step + 1)]
        assert around == [False, True, True], percent


@pytest.mark.parametrize(
    ("fraction", "total", "step"),
    [(0.07, 100, 7), (0.5, 7, 4), (1 / 3, 9, 3), (1 / 3, 10, 4), (0.001, 10, 1), (0.9, 10, 9)],
)
def test_fraction_is_rounded_up_to_steps(fraction, total, step) -> None:
    due = [trigger_of({"fraction": fraction}).is_due(clock(step=now, total_steps=total)) for now in range(total + 1)]
    assert due.index(True) == step


def test_fraction_after_the_previous_thaw_counts_from_it() -> None:
    trigger = trigger_of({"after": {"fraction": 0.25}})
    due = [trigger.is_due(clock(step=now, previous_thaw=ThawTime(0, 10, 0.25))) for now in range(41)]
    assert due.index(True) == 20 and all(due[20:])
    assert (trigger.needs_length, trigger.length_key) == (True, "stages.x.at.after.fraction")
    assert str(trigger) == "0.25 of the run after the stage above"
    assert not trigger.is_due(clock(step=40, previous_thaw=None))
    assert str(next_layer({"fraction": 0.1})) == "0.1 of the run after x.3"


@pytest.mark.parametrize(
    "trigger",
    [trigger_of({"after": {"epochs": 1}}), trigger_of({"after": {"steps": 1}}), next_layer({"epochs": 1})],
    ids=["after epochs", "after steps", "each"],
)
def test_relative_trigger_is_not_due_before_the_previous_thaw(trigger) -> None:
    assert not trigger.is_due(clock(epoch=1000, step=1000, previous_thaw=None))
    assert not trigger.is_due(clock(epoch=1000, step=1000, previous_thaw=ThawTime(1000, 1000)))
    assert trigger.is_due(clock(epoch=1000, step=1000, previous_thaw=ThawTime(999, 999)))


def test_plateau_is_due_when_its_metric_stops_improving() -> None:
    trigger = trigger_of({"plateau": PLATEAU})
    (plateau,) = trigger.plateaus
    due = []
    for value in (3.0, 2.0, 2.0, 2.0, 1.0):
        plateau.observe(value)
        due.append(trigger.is_due(clock()))
    assert due == [False, False, False, True, True]


def test_plateau_options_are_those_given_else_defaults() -> None:
    (given,) = trigger_of({"plateau": {"monitor": "acc", "patience": 5, "mode": "max", "min_delta": 0.1}}).plateaus
    (default,) = trigger_of({"plateau": {"monitor": "acc", "patience": None, "mode": None}}).plateaus
    assert (given.monitor, given.patience, given.mode, given.min_delta) == ("acc", 5, "max", 0.1)
    assert (default.monitor, default.patience, default.mode, default.min_delta) == ("acc", 3, "min", 0.0)
    assert given.key == "stages.x.at.plateau.monitor"


def test_each_layer_has_a_plateau_of_its_own() -> None:
    make = parse_each({"plateau": PLATEAU}, "stages.x.each")
    (first,), (second,) = make("x.3").plateaus, make("x.2").plateaus
    for value in (1.0, 1.0, 1.0):
        first.observe(value)
    second.observe(2.0)
    assert (first.reached, second.reached, second.wait_count) == (True, False, 0)
    assert second.key == "stages.x.each.plateau.monitor"


def test_any_is_due_when_one_trigger_is() -> None:
    def trigger() -> Trigger:
        return trigger_of({"any": [{"epoch": 2}, {"plateau": {"monitor": "loss", "patience": 1}}, {"step": 9}]})

    assert [trigger().is_due(clock(**now)) for now in ({}, {"epoch": 2}, {"step": 9})] == [False, True, True]
    by_metric = trigger()
    for value in (1.0, 1.0):
        by_metric.plateaus[0].observe(value)
    assert by_metric.is_due(clock())


def test_any_inside_any_has_the_plateaus_of_both() -> None:
    inner = {"any": [{"plateau": {"monitor": "b"}}, {"plateau": {"monitor": "c"}}]}
    trigger = trigger_of({"any": [{"plateau": {"monitor": "a"}}, {"step": 3}, inner]})
    assert [(plateau.monitor, plateau.key) for plateau in trigger.plateaus] == [
        ("a", "stages.x.at.any[0].plateau.monitor"),
        ("b", "stages.x.at.any[2].any[0].plateau.monitor"),
        ("c", "stages.x.at.any[2].any[1].plateau.monitor"),
    ]
    assert [trigger.is_due(clock(step=now)) for now in (2, 3)] == [False, True]


@pytest.mark.parametrize("result", [True, False])
def test_user_function_is_called_by_the_clock(result) -> None:
    def condition() -> None: ...

    called = []

    def evaluate(function: Any) -> bool:
        called.append(function)
        return result

    for trigger in (trigger_of(condition), trigger_of({"any": [condition]})):
        assert trigger.is_due(clock(evaluate=evaluate)) is result
    assert called == [condition, condition]


# Before the run


@pytest.mark.parametrize(
    "at", [None, {"epoch": 0}, {"step": 0}, {"fraction": 0}, {"fraction": 0.0}, {"any": [{"step": 0}, {"epoch": 3}]}]
)
def test_trigger_at_position_0_means_from_the_start(at) -> None:
    trigger = trigger_of(at)
    assert trigger.from_start
    assert trigger.is_due(clock())


@pytest.mark.parametrize(
    "at",
    [
        {"epoch": 1},
        {"step": 1},
        {"fraction": 0.001},
        {"after": {"steps": 1}},
        {"plateau": PLATEAU},
        {"any": [{"epoch": 1}]},
        len,
    ],
    ids=str,
)
def test_other_triggers_are_not_from_the_start(at) -> None:
    assert not trigger_of(at).from_start


@pytest.mark.parametrize(
    ("at", "needs_length"),
    [
        ({"fraction": 0.5}, True),
        ({"any": [{"epoch": 1}, {"fraction": 0.5}]}, True),
        ({"any": [{"any": [{"fraction": 0.5}]}]}, True),
        ({"any": [{"epoch": 1}]}, False),
        ({"step": 5}, False),
        (None, False),
    ],
    ids=str,
)
def test_only_a_fraction_needs_the_length_of_the_run(at, needs_length) -> None:
    assert trigger_of(at).needs_length is needs_length


@pytest.mark.parametrize(
    ("at", "reachable"),
    [
        ({"epoch": 2}, True),
        ({"epoch": 3}, False),
        ({"step": 11}, True),
        ({"step": 12}, False),
        ({"any": [{"epoch": 3}, {"step": 11}]}, True),
        ({"any": [{"epoch": 3}, {"step": 12}]}, False),
        ({"after": {"epochs": 99}}, True),
        ({"plateau": PLATEAU}, True),
        ({"fraction": 0.9}, True),
        (len, True),
        (None, True),
    ],
    ids=str,
)
def test_reachable_in_a_run_of_three_epochs_and_twelve_steps(at, reachable) -> None:
    assert trigger_of(at).is_reachable(3, 12) is reachable


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        ({"epoch": 2}, True),
        ({"after": {"epochs": 1}}, True),
        ({"any": [{"step": 3}, {"epoch": 2}]}, True),
        ({"after": {"steps": 1}}, False),
        ({"step": 3}, False),
        ({"fraction": 0.5}, False),
        ({"plateau": PLATEAU}, False),
        ({"any": [{"step": 3}, {"plateau": PLATEAU}]}, False),
        (None, False),
    ],
    ids=str,
)
def test_triggers_by_epoch_count_epochs(at, counts) -> None:
    assert trigger_of(at).counts_epochs is counts


@pytest.mark.parametrize("previous", [True, False], ids=["previous predictable", "previous unpredictable"])
@pytest.mark.parametrize(
    ("at", "is_predictable"),
    [
        ({"epoch": 2}, True),
        ({"step": 3}, True),
        ({"fraction": 0.5}, True),
        (None, True),
        ({"after": {"epochs": 1}}, "as the previous"),
        ({"any": [{"after": {"steps": 1}}, {"epoch": 3}]}, "as the previous"),
        ({"plateau": PLATEAU}, False),
        (len, False),
        ({"any": [{"epoch": 3}, {"plateau": PLATEAU}]}, False),
        ({"any": [{"epoch": 3}, {"step": 2}]}, True),
        ({"any": [{"epoch": 0}, {"plateau": PLATEAU}]}, True),
    ],
    ids=str,
)
def test_predictable_before_the_run(at, is_predictable, previous) -> None:
    assert trigger_of(at).is_predictable(previous) is (
        previous if is_predictable == "as the previous" else is_predictable
    )


class Condition:
    def __call__(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (trigger_of(None), "from the start"),
        (trigger_of({"epoch": 2}), "epoch 2"),
        (trigger_of({"step": 500}), "step 500"),
        (trigger_of({"fraction": 0.3}), "0.3 of the run"),
        (trigger_of({"fraction": 1 / 3}), "0.3333 of the run"),
        (trigger_of({"after": {"epochs": 1}}), "1 epoch after the stage above"),
        (trigger_of({"after": {"steps": 20}}), "20 steps after the stage above"),
        (next_layer({"epochs": 2}), "2 epochs after x.3"),
        (next_layer({"steps": 1}), "1 step after x.3"),
        (next_layer({"plateau": PLATEAU}), "plateau of val/loss, patience 2"),
        (trigger_of({"plateau": PLATEAU}), "plateau of val/loss, patience 2"),
        (trigger_of({"any": [{"plateau": PLATEAU}, {"epoch": 9}]}), "plateau of val/loss, patience 2 or epoch 9"),
        (trigger_of({"any": [{"epoch": 9}]}), "epoch 9"),
        (trigger_of(len), "len()"),
        (trigger_of(Condition()), "Condition()"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_str_says_when_it_is_due(trigger, text) -> None:
    assert str(trigger) == text
