"""Triggers: each is due from its moment on and not before; what is no trigger is refused, and says what to type."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_optim import ConfigError
from lightning_optim.stages.stages import Stage, parse_stages
from lightning_optim.stages.triggers import AnyOf, Clock, Trigger, parse_each, parse_trigger
from tests.support.messages import check_message

PLATEAU = {"monitor": "val/loss", "patience": 2}


def trigger_of(at: Any) -> Trigger:
    return parse_trigger(at, "stages.x.at")


def next_layer(each: Any) -> Trigger:
    return parse_each(each, "stages.x.each")("x.3")


def clock(**now: Any) -> Clock:
    return Clock(**{"epoch": 0, "step": 0, "total_steps": 40, **now})


# When


@pytest.mark.parametrize(
    ("trigger", "unit", "moment"),
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
def test_it_is_due_from_its_moment_on(trigger, unit, moment) -> None:
    """At 1000 for the first time asked, too: what is reached late still fires."""
    due = {now: trigger.due(clock(since=(4, 9), **{unit: now})) for now in (*range(40), 1000)}
    assert due == {now: now >= moment for now in due}


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
def test_it_does_not_look_at_the_other_count(at, elsewhere) -> None:
    assert not trigger_of(at).due(clock(since=(4, 9), **elsewhere))


@pytest.mark.parametrize("total", [100, 300, 4700, 100_000, 10_000_000])
def test_a_percentage_is_due_at_just_that_step(total) -> None:
    """0.07 * 100 is 7.000000000000001, 0.57 * 100 is 56.99999999999999."""
    for percent in range(1, 100):
        trigger, step = trigger_of({"fraction": percent / 100}), percent * total // 100
        around = [trigger.due(clock(step=now, total_steps=total)) for now in (step - 1, step, step + 1)]
        assert around == [False, True, True], percent


@pytest.mark.parametrize(
    ("fraction", "total", "step"),
    [(0.07, 100, 7), (0.5, 7, 4), (1 / 3, 9, 3), (1 / 3, 10, 4), (0.001, 10, 1), (0.9, 10, 9)],
)
def test_a_fraction_is_rounded_up_to_whole_steps(fraction, total, step) -> None:
    due = [trigger_of({"fraction": fraction}).due(clock(step=now, total_steps=total)) for now in range(total + 1)]
    assert due.index(True) == step


@pytest.mark.parametrize(
    "trigger",
    [trigger_of({"after": {"epochs": 1}}), trigger_of({"after": {"steps": 1}}), next_layer({"epochs": 1})],
    ids=["after epochs", "after steps", "each"],
)
def test_what_counts_from_the_thaw_before_waits_for_it(trigger) -> None:
    assert not trigger.due(clock(epoch=1000, step=1000, since=None))
    assert not trigger.due(clock(epoch=1000, step=1000, since=(1000, 1000)))
    assert trigger.due(clock(epoch=1000, step=1000, since=(999, 999)))


def test_a_plateau_is_due_once_its_metric_has_stopped_getting_better() -> None:
    trigger = trigger_of({"plateau": PLATEAU})
    (plateau,) = trigger.plateaus
    seen = []
    for value in (3.0, 2.0, 2.0, 2.0, 1.0):
        plateau.observe(value)
        seen.append(trigger.due(clock()))
    assert seen == [False, False, False, True, True]


def test_a_plateau_takes_what_it_is_given_and_defaults_elsewhere() -> None:
    (given,) = trigger_of({"plateau": {"monitor": "acc", "patience": 5, "mode": "max", "min_delta": 0.1}}).plateaus
    (default,) = trigger_of({"plateau": {"monitor": "acc", "patience": None, "mode": None}}).plateaus
    assert (given.monitor, given.patience, given.mode, given.min_delta) == ("acc", 5, "max", 0.1)
    assert (default.monitor, default.patience, default.mode, default.min_delta) == ("acc", 3, "min", 0.0)
    assert given.key == "stages.x.at.plateau.monitor"


def test_each_layer_watches_for_itself() -> None:
    make = parse_each({"plateau": PLATEAU}, "stages.x.each")
    (first,), (second,) = make("x.3").plateaus, make("x.2").plateaus
    for value in (1.0, 1.0, 1.0):
        first.observe(value)
    second.observe(2.0)
    assert (first.reached, second.reached, second.num_bad) == (True, False, 0)
    assert second.key == "stages.x.each.plateau.monitor"


def test_any_is_due_with_the_first_of_them_whichever_it_is() -> None:
    def trigger() -> Trigger:
        return trigger_of({"any": [{"epoch": 2}, {"plateau": {"monitor": "loss", "patience": 1}}, {"step": 9}]})

    assert [trigger().due(clock(**now)) for now in ({}, {"epoch": 2}, {"step": 9})] == [False, True, True]
    by_metric = trigger()
    for value in (1.0, 1.0):
        by_metric.plateaus[0].observe(value)
    assert by_metric.due(clock())


def test_any_within_any_watches_all_their_metrics() -> None:
    inner = {"any": [{"plateau": {"monitor": "b"}}, {"plateau": {"monitor": "c"}}]}
    trigger = trigger_of({"any": [{"plateau": {"monitor": "a"}}, {"step": 3}, inner]})
    assert [(one.monitor, one.key) for one in trigger.plateaus] == [
        ("a", "stages.x.at.any[0].plateau.monitor"),
        ("b", "stages.x.at.any[2].any[0].plateau.monitor"),
        ("c", "stages.x.at.any[2].any[1].plateau.monitor"),
    ]
    assert [trigger.due(clock(step=now)) for now in (2, 3)] == [False, True]


@pytest.mark.parametrize("answer", [True, False])
def test_a_callable_is_asked_through_the_clock(answer) -> None:
    def question() -> None: ...

    asked = []

    def ask(function: Any) -> bool:
        asked.append(function)
        return answer

    for trigger in (trigger_of(question), trigger_of({"any": [question]})):
        assert trigger.due(clock(ask=ask)) is answer
    assert asked == [question, question]


# What is known of it before the run


@pytest.mark.parametrize(
    "at", [None, {"epoch": 0}, {"step": 0}, {"fraction": 0}, {"fraction": 0.0}, {"any": [{"step": 0}, {"epoch": 3}]}]
)
def test_a_moment_at_the_beginning_means_from_the_start(at) -> None:
    trigger = trigger_of(at)
    assert trigger.from_start
    assert trigger.due(clock())


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
def test_any_other_does_not(at) -> None:
    assert not trigger_of(at).from_start


@pytest.mark.parametrize(
    ("at", "asks"),
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
def test_only_a_fraction_asks_how_long_the_run_is(at, asks) -> None:
    assert trigger_of(at).needs_length is asks


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
def test_what_a_run_of_three_epochs_and_twelve_steps_can_reach(at, reachable) -> None:
    assert trigger_of(at).reachable(3, 12) is reachable


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
def test_which_ask_for_the_epoch(at, counts) -> None:
    assert trigger_of(at).counts_epochs is counts


@pytest.mark.parametrize("previous", [True, False], ids=["after one foreseen", "after one not"])
@pytest.mark.parametrize(
    ("at", "is_predictable"),
    [
        ({"epoch": 2}, True),
        ({"step": 3}, True),
        ({"fraction": 0.5}, True),
        (None, True),
        ({"after": {"epochs": 1}}, "as the one before"),
        ({"any": [{"after": {"steps": 1}}, {"epoch": 3}]}, "as the one before"),
        ({"plateau": PLATEAU}, False),
        (len, False),
        ({"any": [{"epoch": 3}, {"plateau": PLATEAU}]}, False),
        ({"any": [{"epoch": 3}, {"step": 2}]}, True),
        ({"any": [{"epoch": 0}, {"plateau": PLATEAU}]}, True),
    ],
    ids=str,
)
def test_what_can_be_known_before_the_run(at, is_predictable, previous) -> None:
    assert trigger_of(at).is_predictable(previous) is (
        previous if is_predictable == "as the one before" else is_predictable
    )


class Question:
    def __call__(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("trigger", "said"),
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
        (trigger_of(Question()), "Question()"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_it_says_in_words_when(trigger, said) -> None:
    assert str(trigger) == said


# As a config says it


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ({"epoch": None, "step": 500}, "step 500"),
        ({"step": 500, "epoch": None}, "step 500"),
        ({"epoch": None, "fraction": 0.3, "plateau": None}, "0.3 of the run"),
        ({"plateau": None, "after": {"epochs": None, "steps": 20}}, "20 steps after the stage above"),
        ({"any": [{"epoch": None, "step": 5}]}, "step 5"),
    ],
    ids=str,
)
def test_null_takes_the_trigger_of_a_preset_away(at, said) -> None:
    """`at.epoch=null +at.step=500` on the command line."""
    assert str(trigger_of(at)) == said


@pytest.mark.parametrize(
    ("each", "said"),
    [
        ({"epochs": None, "steps": 500}, "500 steps after x.3"),
        ({"epochs": None, "plateau": PLATEAU}, "plateau of val/loss, patience 2"),
        ({"plateau": None, "epochs": 2}, "2 epochs after x.3"),
    ],
    ids=str,
)
def test_null_takes_the_each_of_a_preset_away(each, said) -> None:
    assert str(next_layer(each)) == said


def test_a_whole_number_may_have_a_point() -> None:
    assert str(trigger_of({"epoch": 3.0})) == "epoch 3"


def parsed(**stage: Any) -> Stage:
    given = {"params": "backbone", "layers": "backbone.layer.{i}", **stage}
    return parse_stages({"head": {"params": "head"}, "top": given})[1]


A_TRIGGER = ("epoch, step, fraction, plateau, after, any", "at: {epoch: 1}", "leave stages.top.at out")
WRONG_AT: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "nothing": ({}, "stages.top.at", ("got {}", *A_TRIGGER)),
    "nothing but null": ({"epoch": None}, "stages.top.at", A_TRIGGER),
    "a word": ("epoch", "stages.top.at", ("got 'epoch'", *A_TRIGGER)),
    "a number": (3, "stages.top.at", ("got 3", *A_TRIGGER)),
    "true": (True, "stages.top.at", ("got True", *A_TRIGGER)),
    "a list": ([{"epoch": 1}], "stages.top.at", A_TRIGGER),
    "misspelt": ({"epoc": 1}, "stages.top.at.epoc", ("'epoc'", "Did you mean 'epoch'?", "epoch, step, fraction")),
    "plural": ({"steps": 5}, "stages.top.at.steps", ("Did you mean 'step'?",)),
    "misspelt plateau": ({"platau": PLATEAU}, "stages.top.at.platau", ("Did you mean 'plateau'?",)),
    "no word at all": ({1: 2}, "stages.top.at.1", ("'1'", "epoch, step, fraction")),
    "a selector": ({"params": "head"}, "stages.top.at.params", ("'params'", "epoch, step, fraction")),
    "two": ({"epoch": 1, "step": 2}, "stages.top.at", (*A_TRIGGER, "at: {any: [{epoch: 1}, {step: 500}]}")),
    "negative epoch": ({"epoch": -1}, "stages.top.at.epoch", ("got -1", "a whole number >= 0", "epoch: 1")),
    "half an epoch": ({"epoch": 1.5}, "stages.top.at.epoch", ("got 1.5", "epoch: 1")),
    "epoch as text": ({"epoch": "1"}, "stages.top.at.epoch", ("got '1'", "epoch: 1")),
    "epoch true": ({"epoch": True}, "stages.top.at.epoch", ("got True", "epoch: 1")),
    "epoch nan": ({"epoch": float("nan")}, "stages.top.at.epoch", ("got nan", "epoch: 1")),
    "endless step": ({"step": float("inf")}, "stages.top.at.step", ("got inf", "step: 1")),
    "negative step": ({"step": -5}, "stages.top.at.step", ("got -5", "step: 1")),
    "all of the run": ({"fraction": 1}, "stages.top.at.fraction", ("got 1", ">= 0 and < 1", "fraction: 0.5")),
    "percent": ({"fraction": 30}, "stages.top.at.fraction", ("got 30", "fraction: 0.5")),
    "percent sign": ({"fraction": "30%"}, "stages.top.at.fraction", ("got '30%'", "fraction: 0.5")),
    "negative fraction": ({"fraction": -0.1}, "stages.top.at.fraction", ("got -0.1", "fraction: 0.5")),
    "after a number": ({"after": 1}, "stages.top.at.after", ("got 1", "epochs, steps", "after: {epochs: 1}")),
    "after nothing": ({"after": {}}, "stages.top.at.after", ("got {}", "after: {epochs: 1}")),
    "after one epoch": ({"after": {"epoch": 1}}, "stages.top.at.after.epoch", ("Did you mean 'epochs'?",)),
    "after a plateau": ({"after": {"plateau": PLATEAU}}, "stages.top.at.after.plateau", ("epochs, steps",)),
    "after no epoch": (
        {"after": {"epochs": 0}},
        "stages.top.at.after.epochs",
        ("got 0", "a whole number >= 1", "epochs: 1"),
    ),
    "after steps as text": ({"after": {"steps": "x"}}, "stages.top.at.after.steps", ("got 'x'", "steps: 1")),
    "after two": ({"after": {"epochs": 1, "steps": 2}}, "stages.top.at.after", ("epochs, steps",)),
    "any of nothing": ({"any": []}, "stages.top.at.any", ("got []", "a list of triggers", "any: [{epoch: 1}]")),
    "any of a mapping": ({"any": {"epoch": 1}}, "stages.top.at.any", ("any: [{epoch: 1}]",)),
    "any of a word": ({"any": "epoch"}, "stages.top.at.any", ("got 'epoch'", "any: [{epoch: 1}]")),
    "any with null": ({"any": [{"step": 2}, None]}, "stages.top.at.any[1]", ("got None", "{epoch: 1}")),
    "any with a number": ({"any": [3]}, "stages.top.at.any[0]", ("got 3", "epoch, step, fraction")),
    "any, misspelt": ({"any": [{"epoch": 1}, {"stp": 2}]}, "stages.top.at.any[1].stp", ("Did you mean 'step'?",)),
    "any, wrong within": (
        {"any": [{"plateau": {**PLATEAU, "patience": 0}}]},
        "stages.top.at.any[0].plateau.patience",
        ("got 0",),
    ),
    "any in any": ({"any": [{"any": [{"epoch": -1}]}]}, "stages.top.at.any[0].any[0].epoch", ("got -1",)),
    "each in at": ({"each": {"epochs": 1}}, "stages.top.at.each", ("'each'", "epoch, step, fraction")),
}
AN_EACH = ("epochs, steps, plateau", "each: {epochs: 1}", "leave stages.top.each out")
WRONG_EACH: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "nothing": ({}, "stages.top.each", ("got {}", *AN_EACH)),
    "nothing but null": ({"epochs": None, "plateau": None}, "stages.top.each", AN_EACH),
    "a number": (1, "stages.top.each", ("got 1", *AN_EACH)),
    "a word": ("epochs", "stages.top.each", ("got 'epochs'", *AN_EACH)),
    "a list": ([{"epochs": 1}], "stages.top.each", AN_EACH),
    "a callable": (len, "stages.top.each", AN_EACH),
    "singular": ({"epoch": 1}, "stages.top.each.epoch", ("Did you mean 'epochs'?",)),
    "misspelt beside a plateau": ({"plateau": PLATEAU, "stps": 2}, "stages.top.each.stps", ("Did you mean 'steps'?",)),
    "a fraction": ({"fraction": 0.1}, "stages.top.each.fraction", ("epochs, steps, plateau",)),
    "any": ({"any": [{"epochs": 1}]}, "stages.top.each.any", ("epochs, steps, plateau",)),
    "no epoch": ({"epochs": 0}, "stages.top.each.epochs", ("got 0", "a whole number >= 1", "epochs: 1")),
    "half a step": ({"steps": 1.5}, "stages.top.each.steps", ("got 1.5", "steps: 1")),
    "two": ({"epochs": 1, "steps": 2}, "stages.top.each", AN_EACH),
    "two, one a plateau": ({"plateau": PLATEAU, "epochs": 1}, "stages.top.each", AN_EACH),
}
# Each is tried in `at` and in `each`.
WRONG_PLATEAU: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "a name": ("val/loss", "", ("got 'val/loss'", "plateau: {monitor: val/loss, patience: 2}")),
    "a list": ([PLATEAU], "", ("plateau: {monitor: val/loss, patience: 2}",)),
    "nothing": ({}, ".monitor", ("got None", "the name of a logged metric", "val/loss")),
    "no monitor": ({"patience": 2}, ".monitor", ("got None", "val/loss")),
    "monitor a number": ({"monitor": 3}, ".monitor", ("got 3", "val/loss")),
    "monitor empty": ({"monitor": ""}, ".monitor", ("got ''", "val/loss")),
    "monitor a list": ({"monitor": ["a", "b"]}, ".monitor", ("got ['a', 'b']", "val/loss")),
    "misspelt monitor": ({"monitr": "a"}, ".monitr", ("'monitr'", "Did you mean 'monitor'?", "monitor, patience")),
    "misspelt patience": ({**PLATEAU, "patiense": 2}, ".patiense", ("Did you mean 'patience'?",)),
    "of another class": ({**PLATEAU, "threshold": 2}, ".threshold", ("monitor, patience, mode, min_delta",)),
    "misspelt, null": ({**PLATEAU, "mod": None}, ".mod", ("Did you mean 'mode'?",)),
    "patience 0": ({**PLATEAU, "patience": 0}, ".patience", ("got 0", "a whole number >= 1", "patience: 3")),
    "patience 1.5": ({**PLATEAU, "patience": 1.5}, ".patience", ("got 1.5", "patience: 3")),
    "patience as text": ({**PLATEAU, "patience": "2"}, ".patience", ("got '2'", "patience: 3")),
    "misspelt mode": ({**PLATEAU, "mode": "mx"}, ".mode", ("got 'mx'", "one of min, max", "Did you mean 'max'?")),
    "mode auto": ({**PLATEAU, "mode": "auto"}, ".mode", ("got 'auto'", "mode: min")),
    "negative min_delta": ({**PLATEAU, "min_delta": -1}, ".min_delta", ("got -1", ">= 0", "min_delta: 0.0")),
    "min_delta as text": ({**PLATEAU, "min_delta": "x"}, ".min_delta", ("got 'x'", "min_delta: 0.0")),
}


@pytest.mark.parametrize(("at", "key", "parts"), WRONG_AT.values(), ids=WRONG_AT)
def test_a_wrong_at_is_refused(at, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(at=at)
    check_message(caught, key, *parts)


@pytest.mark.parametrize(("each", "key", "parts"), WRONG_EACH.values(), ids=WRONG_EACH)
def test_a_wrong_each_is_refused(each, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(each=each)
    check_message(caught, key, *parts)


@pytest.mark.parametrize("where", ["at", "each"])
@pytest.mark.parametrize(("plateau", "below", "parts"), WRONG_PLATEAU.values(), ids=WRONG_PLATEAU)
def test_a_wrong_plateau_is_refused(where, plateau, below, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**{where: {"plateau": plateau}})
    check_message(caught, f"stages.top.{where}.plateau{below}", *parts)


@pytest.mark.parametrize(
    "each", [{"epochs": 1, "steps": 2}, {"plateau": PLATEAU, "epochs": 1}], ids=["counts", "a count and a plateau"]
)
def test_any_is_not_advised_where_it_would_not_be_taken(each) -> None:
    """Layer by layer there is no `any`."""
    with pytest.raises(ConfigError) as caught:
        parsed(each=each)
    assert "any" not in str(caught.value)


def test_a_trigger_may_be_left_out_of_any_stage() -> None:
    assert [str(parsed(at=None).trigger), parsed(each=None).each] == ["from the start", None]
    assert isinstance(parsed(at={"any": [{"epoch": 1}]}).trigger, AnyOf)
