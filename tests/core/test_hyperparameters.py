"""What values a hyperparameter accepts, and how a wrong one is refused."""

import math

import pytest
import yaml
from omegaconf import OmegaConf

from lightning_optim import ConfigError
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.core.config_values import to_yaml
from lightning_optim.core.hyperparameters import (
    Choice,
    Fields,
    Flag,
    Hyperparameter,
    IncreasingIntegers,
    Number,
    Numbers,
    Parts,
    SameTypeAsDefault,
    Text,
)
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.messages import check_message

POSITIVE = Number(default=0.5, low=0, open_low=True)
UNIT = Number(default=0.5, low=0, high=1, open_high=True)
INTEGER = Number(default=3, low=1, integer=True)
PAIR = Numbers(default=(None, 0.5), items=(Number(default=None, low=0, optional=True), UNIT))
FLAG = Flag(default=None, optional=True)
CHOICE = Choice(default="min", options=("min", "max"))
FIELDS = Fields(default=None, optional=True, items={"k": INTEGER, "alpha": UNIT})

ALLOWED = {
    "closed bound": (UNIT, 0, 0.0),
    "int for a float": (POSITIVE, 2, 2.0),
    "integral float for an int": (INTEGER, 4.0, 4),
    "list for a tuple": (PAIR, [None, 0], (None, 0.0)),
    "null": (FLAG, None, None),
    "flag": (FLAG, True, True),
    "choice": (CHOICE, "max", "max"),
    "text": (Text(default="x"), "val/loss", "val/loss"),
    "increasing integers": (IncreasingIntegers(), (1, 5), [1, 5]),
    "integral floats in a list of integers": (IncreasingIntegers(), [1.0, 1e3], [1, 1000]),
    "parts": (Parts(default=1), [5, 2.0], (5, 2)),
    "a number of parts": (Parts(default=1), 3, 3),
    "fields that are missing get their default": (FIELDS, {"k": 2}, {"k": 2, "alpha": 0.5}),
    "null for fields": (FIELDS, None, None),
    "same type: anything where the default is null": (SameTypeAsDefault(default=None), "x", "x"),
    "same type: anything where there is no default": (SameTypeAsDefault(), "x", "x"),
    "same type: int for a float": (SameTypeAsDefault(default=0.5), 3, 3),
    "same type: list for a tuple": (SameTypeAsDefault(default=(0.9, 0.99)), [0.8, 0.9], (0.8, 0.9)),
    "same type: text": (SameTypeAsDefault(default="x"), "y", "y"),
}
REFUSED = {
    "open high bound": (UNIT, 1, "a finite number >= 0 and < 1"),
    "below the low bound": (UNIT, -0.1, "a finite number >= 0 and < 1"),
    "above the closed high bound": (Number(default=0.5, high=1), 1.1, "a finite number <= 1"),
    "open low bound": (POSITIVE, 0, "a finite number > 0"),
    "a bool is no number": (POSITIVE, True, "a finite number > 0"),
    "nan": (POSITIVE, math.nan, "a finite number > 0"),
    "inf": (POSITIVE, math.inf, "a finite number > 0"),
    "integer beyond the range of floats": (POSITIVE, 10**400, "a finite number > 0"),
    "null": (POSITIVE, None, "a finite number > 0"),
    "fraction": (INTEGER, 2.5, "an integer >= 1"),
    "short list": (PAIR, [0.1], "a list of 2: a finite number >= 0 or null; a finite number >= 0 and < 1"),
    "null item": (PAIR, [0.1, None], "a list of 2"),
    "no list": (PAIR, 0.1, "a list of 2"),
    "1 is no flag": (FLAG, 1, "true or false or null"),
    "unknown choice": (CHOICE, "avg", "one of min, max"),
    "empty text": (Text(default="x"), "", "a non-empty string"),
    "empty list": (IncreasingIntegers(), [], "an increasing list of positive integers"),
    "decreasing list": (IncreasingIntegers(), [5, 1], "an increasing list"),
    "repeated integer": (IncreasingIntegers(), [1, 1], "an increasing list"),
    "zero in a list of positive integers": (IncreasingIntegers(), [0, 1], "an increasing list"),
    "fraction in a list of integers": (IncreasingIntegers(), [1.5, 2], "an increasing list"),
    "bool in a list of integers": (IncreasingIntegers(), [True, 2], "an increasing list"),
    "no parts": (Parts(default=1), [], "an integer >= 1, or a list of positive integers"),
    "no number of parts": (Parts(default=1), 0, "an integer >= 1, or a list of positive integers"),
    "an empty part": (Parts(default=1), [5, 0], "an integer >= 1, or a list of positive integers"),
    "fields that are no mapping": (FIELDS, 3, "a mapping of k (an integer >= 1) and alpha (a finite number"),
    "same type: a flag for a number": (SameTypeAsDefault(default=1), True, "a finite number"),
    "same type: a number for a flag": (SameTypeAsDefault(default=True), 1, "true or false"),
    "same type: inf": (SameTypeAsDefault(default=1.0), math.inf, "a finite number"),
    "same type: list of another length": (SameTypeAsDefault(default=(1, 2)), [1], "a list of 2"),
    "same type: a number for a text": (SameTypeAsDefault(default="x"), 1, "a str"),
}


def test_allowed_values_are_converted_to_the_type_that_the_algorithm_uses():
    for case, (spec, given, expected) in ALLOWED.items():
        converted = spec.check(given, "key")
        assert converted == expected, case
        assert type(converted) is type(expected), case


def test_other_values_are_refused_with_what_is_allowed_and_an_example():
    for case, (spec, given, allowed) in REFUSED.items():
        with pytest.raises(ConfigError) as caught:
            pytest.fail(f"{case}: {spec.check(given, 'groups.head.key')!r} was accepted")
        example = [] if spec.required or spec.default is None else [f"Type for example key: {to_yaml(spec.default)}"]
        check_message(caught, "groups.head.key", f"got {given!r}, which is not {allowed}", *example)


def test_a_misspelt_choice_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"^key: got 'mim', which is not one of min, max\. Did you mean 'min'\?$"):
        CHOICE.check("mim", "key")


def test_fields_name_the_field_that_is_wrong():
    with pytest.raises(ConfigError, match=r"^lookahead\.kk: lookahead has no key 'kk'\. Did you mean 'k'\?"):
        FIELDS.check({"kk": 3}, "lookahead")
    with pytest.raises(ConfigError, match=r"^lookahead\.k: got 0, which is not an integer >= 1\. .* k: 3$"):
        FIELDS.check({"k": 0}, "lookahead")
    with pytest.raises(ConfigError, match=r"Type for example lookahead: {k: 3, alpha: 0.5}$"):
        FIELDS.check(3, "lookahead")


def test_every_default_in_the_registries_is_allowed_and_survives_yaml():
    infos = [*BUILT_IN.values(), *SCHEDULES.values()]
    specs = {f"{info.name}.{key}": spec for info in infos for key, spec in info.hyperparameters.items()}
    by_text: dict[str, dict[str, Hyperparameter]] = {}
    for key, spec in specs.items():
        if spec.default is Hyperparameter.REQUIRED:
            assert spec.required, key
            continue
        by_text.setdefault(to_yaml(spec.default), {})[key] = spec
    for text, same_default in by_text.items():
        read = yaml.safe_load(text)
        assert OmegaConf.create(f"value: {text}").value == read, text
        for key, spec in same_default.items():
            assert spec.check(read, "key") == spec.default, key
    assert len(specs) > 700
