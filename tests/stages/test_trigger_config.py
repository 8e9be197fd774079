"""Parsing `at` and `each`: null removes a preset's trigger; what is not a trigger is refused with what to type."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_optim import ConfigError
from lightning_optim.stages.stages import Stage, parse_stages
from lightning_optim.stages.trigger_config import parse_each, parse_trigger
from lightning_optim.stages.triggers import AnyOf
from tests.support.messages import check_message

PLATEAU = {"monitor": "val/loss", "patience": 2}


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ({"epoch": None, "step": 500}, "step 500"),
        ({"step": 500, "epoch": None}, "step 500"),
        ({"epoch": None, "fraction": 0.3, "plateau": None}, "0.3 of the run"),
        ({"plateau": None, "after": {"epochs": None, "steps": 20}}, "20 steps after the stage above"),
        ({"any": [{"epoch": None, "step": 5}]}, "step 5"),
    ],
    ids=str,
)
def test_null_removes_the_trigger_of_a_preset(at, text) -> None:
    """`at.epoch=null +at.step=500` on the command line."""
    assert str(parse_trigger(at, "stages.x.at")) == text


@pytest.mark.parametrize(
    ("each", "text"),
    [
        ({"epochs": None, "steps": 500}, "500 steps after x.3"),
        ({"epochs": None, "plateau": PLATEAU}, "plateau of val/loss, patience 2"),
        ({"plateau": None, "epochs": 2}, "2 epochs after x.3"),
    ],
    ids=str,
)
def test_null_removes_the_each_of_a_preset(each, text) -> None:
    assert str(parse_each(each, "stages.x.each")("x.3")) == text


def test_integer_may_be_written_as_a_float() -> None:
    assert str(parse_trigger({"epoch": 3.0}, "stages.x.at")) == "epoch 3"


def parse_stage(**stage: Any) -> Stage:
    given = {"params": "backbone", "layers": "backbone.layer.{i}", **stage}
    return parse_stages({"head": {"params": "head"}, "top": given})[1]


TRIGGER_HINT = ("epoch, step, fraction, plateau, after, any", "at: {epoch: 1}", "leave stages.top.at out")
WRONG_AT: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "nothing": ({}, "stages.top.at", ("got {}", *TRIGGER_HINT)),
    "nothing but null": ({"epoch": None}, "stages.top.at", TRIGGER_HINT),
    "a word": ("epoch", "stages.top.at", ("got 'epoch'", *TRIGGER_HINT)),
    "a number": (3, "stages.top.at", ("got 3", *TRIGGER_HINT)),
    "true": (True, "stages.top.at", ("got True", *TRIGGER_HINT)),
    "a list": ([{"epoch": 1}], "stages.top.at", TRIGGER_HINT),
    "misspelt": ({"epoc": 1}, "stages.top.at.epoc", ("'epoc'", "Did you mean 'epoch'?", "epoch, step, fraction")),
    "plural": ({"steps": 5}, "stages.top.at.steps", ("Did you mean 'step'?",)),
    "misspelt plateau": ({"platau": PLATEAU}, "stages.top.at.platau", ("Did you mean 'plateau'?",)),
    "no word at all": ({1: 2}, "stages.top.at.1", ("'1'", "epoch, step, fraction")),
    "a selector": ({"params": "head"}, "stages.top.at.params", ("'params'", "epoch, step, fraction")),
    "two": ({"epoch": 1, "step": 2}, "stages.top.at", (*TRIGGER_HINT, "at: {any: [{epoch: 1}, {step: 500}]}")),
    "negative epoch": ({"epoch": -1}, "stages.top.at.epoch", ("got -1", "an integer >= 0", "epoch: 1")),
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
        ("got 0", "an integer >= 1", "epochs: 1"),
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
EACH_HINT = ("epochs, steps, plateau", "each: {epochs: 1}", "leave stages.top.each out")
WRONG_EACH: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "nothing": ({}, "stages.top.each", ("got {}", *EACH_HINT)),
    "nothing but null": ({"epochs": None, "plateau": None}, "stages.top.each", EACH_HINT),
    "a number": (1, "stages.top.each", ("got 1", *EACH_HINT)),
    "a word": ("epochs", "stages.top.each", ("got 'epochs'", *EACH_HINT)),
    "a list": ([{"epochs": 1}], "stages.top.each", EACH_HINT),
    "a callable": (len, "stages.top.each", EACH_HINT),
    "singular": ({"epoch": 1}, "stages.top.each.epoch", ("Did you mean 'epochs'?",)),
    "misspelt beside a plateau": ({"plateau": PLATEAU, "stps": 2}, "stages.top.each.stps", ("Did you mean 'steps'?",)),
    "a whole fraction": ({"fraction": 1}, "stages.top.each.fraction", ("got 1", "fraction: 0.1")),
    "any": ({"any": [{"epochs": 1}]}, "stages.top.each.any", ("epochs, steps, plateau",)),
    "no epoch": ({"epochs": 0}, "stages.top.each.epochs", ("got 0", "an integer >= 1", "epochs: 1")),
    "half a step": ({"steps": 1.5}, "stages.top.each.steps", ("got 1.5", "steps: 1")),
    "two": ({"epochs": 1, "steps": 2}, "stages.top.each", EACH_HINT),
    "two, one a plateau": ({"plateau": PLATEAU, "epochs": 1}, "stages.top.each", EACH_HINT),
}
# Tested in `at` and in `each`.
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
    "patience 0": ({**PLATEAU, "patience": 0}, ".patience", ("got 0", "an integer >= 1", "patience: 3")),
    "patience 1.5": ({**PLATEAU, "patience": 1.5}, ".patience", ("got 1.5", "patience: 3")),
    "patience as text": ({**PLATEAU, "patience": "2"}, ".patience", ("got '2'", "text", "patience: 2")),
    "misspelt mode": ({**PLATEAU, "mode": "mx"}, ".mode", ("got 'mx'", "one of min, max", "Did you mean 'max'?")),
    "mode auto": ({**PLATEAU, "mode": "auto"}, ".mode", ("got 'auto'", "mode: min")),
    "negative min_delta": ({**PLATEAU, "min_delta": -1}, ".min_delta", ("got -1", ">= 0", "min_delta: 0.0")),
    "min_delta as text": ({**PLATEAU, "min_delta": "x"}, ".min_delta", ("got 'x'", "min_delta: 0.0")),
}


@pytest.mark.parametrize(("at", "key", "parts"), WRONG_AT.values(), ids=WRONG_AT)
def test_wrong_at_is_refused(at, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_stage(at=at)
    check_message(caught, key, *parts)


@pytest.mark.parametrize(("each", "key", "parts"), WRONG_EACH.values(), ids=WRONG_EACH)
def test_wrong_each_is_refused(each, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_stage(each=each)
    check_message(caught, key, *parts)


@pytest.mark.parametrize("where", ["at", "each"])
@pytest.mark.parametrize(("plateau", "below", "parts"), WRONG_PLATEAU.values(), ids=WRONG_PLATEAU)
def test_wrong_plateau_is_refused(where, plateau, below, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_stage(**{where: {"plateau": plateau}})
    check_message(caught, f"stages.top.{where}.plateau{below}", *parts)


@pytest.mark.parametrize(
    "each", [{"epochs": 1, "steps": 2}, {"plateau": PLATEAU, "epochs": 1}], ids=["counts", "a count and a plateau"]
)
def test_error_in_each_does_not_suggest_any(each) -> None:
    """`each` does not accept `any`."""
    with pytest.raises(ConfigError) as caught:
        parse_stage(each=each)
    assert "any" not in str(caught.value)


def test_at_and_each_are_optional() -> None:
    assert [str(parse_stage(at=None).trigger), parse_stage(each=None).each] == ["from the start", None]
    assert isinstance(parse_stage(at={"any": [{"epoch": 1}]}).trigger, AnyOf)
