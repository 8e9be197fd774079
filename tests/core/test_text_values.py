"""Text in place of a number, a flag or null is named as text, with the value to type, which every YAML parser reads."""

import yaml
from omegaconf import OmegaConf

from lightning_optim.core.hyperparameters import Choice, Fields, Flag, IncreasingIntegers, Number, Numbers
from lightning_optim.core.text_values import read_text
from tests.support.messages import check_refusals

POSITIVE = Number(default=0.5, low=0)
INTEGER = Number(default=3, low=1, integer=True)
PAIR = Numbers(default=(0.9, 0.999), items=(POSITIVE, POSITIVE))
FIELDS = Fields(default=None, optional=True, items={"k": INTEGER})
FLAG = Flag(default=None, optional=True)
CHOICE = Choice(default=None, optional=True, options=("min", "max"))

# By the text: the spec, its meaning, and what to type.
TEXT = {
    "1e-3": (POSITIVE, 1e-3, "1.0e-3 (YAML 1.1"),
    "1E5": (POSITIVE, 1e5, "1.0e+5 (YAML 1.1"),
    "2.5e4": (POSITIVE, 2.5e4, "2.5e+4 (YAML 1.1"),
    "1.e-3": (POSITIVE, 1e-3, "1.0e-3 without quotes"),
    "0.1": (POSITIVE, 0.1, "0.1 without quotes"),
    " 7 ": (INTEGER, 7, "7 without quotes"),
    "1e2": (INTEGER, 100.0, "1.0e+2 (YAML 1.1"),
    "[0.9, 0.99]": (PAIR, [0.9, 0.99], "[0.9, 0.99] without quotes"),
    "True": (FLAG, True, "true without quotes"),
    "off": (FLAG, False, "false without quotes"),
    "None": (FLAG, None, "null without quotes"),
    "null": (CHOICE, None, "null without quotes"),
}
NO_NUMBER = ["abc", "1/2", "1,5", "10%", "nan", "inf", "-Infinity", "0x10", "???", "", "[1", "[a]", "min", "1e", "--1"]


def test_text_is_named_as_text_with_the_value_to_type():
    environment = "type key: ${oc.decode:${oc.env:NAME}}"
    check_refusals(
        {
            text: (
                lambda text=text, spec=spec: spec.check(text, "groups.head.key"),
                "groups.head.key",
                [f"got {text!r}, which is text, not {spec.describe()}. Type key: {cure}", environment],
            )
            for text, (spec, _, cure) in TEXT.items()
        }
    )


def test_what_to_type_is_read_alike_by_every_parser():
    for text, (_, meaning, cure) in TEXT.items():
        typed = cure.removesuffix(" (YAML 1.1").removesuffix(" without quotes")
        assert read_text(text) == meaning, text
        for value in (yaml.safe_load(f"key: {typed}")["key"], OmegaConf.create(f"key: {typed}").key):
            assert value == meaning and not isinstance(value, str), text


def test_text_inside_a_list_or_a_mapping_is_named_too():
    check_refusals(
        {
            "in a list": (lambda: PAIR.check(["0.9", 0.99], "betas"), "betas", ["text", "Type betas: [0.9, 0.99] "]),
            "with exponents": (lambda: PAIR.check(["1e-3", "1"], "eps"), "eps", ["text", "Type eps: [1.0e-3, 1] "]),
            "integers": (lambda: IncreasingIntegers().check(["1", "5"], "at"), "at", ["text", "Type at: [1, 5] "]),
            "in a mapping": (lambda: FIELDS.check({"k": "5"}, "look"), "look.k", ["text", "Type k: 5 "]),
        }
    )


def test_a_number_out_of_bounds_is_named_as_text_with_an_example():
    check_refusals({"-1": (lambda: POSITIVE.check("-1", "lr"), "lr", ["'-1', which is text", "for example lr: 0.5"])})


def test_other_text_is_not_taken_for_a_number():
    for text in NO_NUMBER:
        assert read_text(text) is text
    check_refusals({"abc": (lambda: POSITIVE.check("abc", "lr"), "lr", ["got 'abc', which is not a finite number"])})
    check_refusals({"5": (lambda: CHOICE.check("5", "mode"), "mode", ["got '5', which is not one of min, max"])})
