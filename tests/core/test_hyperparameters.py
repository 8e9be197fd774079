"""What values a hyperparameter takes, and how a wrong one is refused."""

import json
import math
import re

import pytest
import yaml
from omegaconf import OmegaConf

from lightning_optim import ConfigError, list_optimizers, optimizer_info
from lightning_optim.core.config_values import to_plain, to_yaml
from lightning_optim.core.hyperparameters import Choice, Flag, IncreasingIntegers, Number, Numbers, Text
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.messages import check_message

POSITIVE = Number(default=0.5, low=0, open_low=True)
UNIT = Number(default=0.5, low=0, high=1, open_high=True)
WHOLE = Number(default=3, low=1, integer=True)
PAIR = Numbers(default=(None, 0.5), items=(Number(default=None, low=0, optional=True), UNIT))
FLAG = Flag(default=None, optional=True)
CHOICE = Choice(default="min", options=("min", "max"))


@pytest.mark.parametrize(
    ("spec", "given", "taken"),
    [
        pytest.param(UNIT, 0, 0.0, id="closed_bound"),
        pytest.param(POSITIVE, 2, 2.0, id="int_to_float"),
        pytest.param(WHOLE, 4.0, 4, id="whole_float_to_int"),
        pytest.param(PAIR, [None, 0], (None, 0.0), id="list_to_tuple"),
        pytest.param(FLAG, None, None, id="optional"),
        pytest.param(FLAG, True, True, id="flag"),
        pytest.param(CHOICE, "max", "max", id="choice"),
        pytest.param(Text(default="x"), "val/loss", "val/loss", id="text"),
        pytest.param(IncreasingIntegers(), (1, 5), [1, 5], id="whole_numbers"),
    ],
)
def test_check_gives_the_value_in_the_type_the_algorithm_takes(spec, given, taken):
    checked = spec.check(given, "key")
    assert checked == taken
    assert type(checked) is type(taken)


@pytest.mark.parametrize(
    ("spec", "given", "allowed"),
    [
        pytest.param(UNIT, 1, "a finite number >= 0 and < 1", id="open_high"),
        pytest.param(UNIT, -0.1, "a finite number >= 0 and < 1", id="low"),
        pytest.param(POSITIVE, 0, "a finite number > 0", id="open_low"),
        pytest.param(POSITIVE, True, "a finite number > 0", id="bool_is_no_number"),
        pytest.param(POSITIVE, math.nan, "a finite number > 0", id="nan"),
        pytest.param(POSITIVE, math.inf, "a finite number > 0", id="inf"),
        pytest.param(POSITIVE, 10**400, "a finite number > 0", id="beyond_float"),
        pytest.param(POSITIVE, None, "a finite number > 0", id="null"),
        pytest.param(WHOLE, 2.5, "a whole number >= 1", id="fraction"),
        pytest.param(
            PAIR, [0.1], "a list of 2: a finite number >= 0 or null; a finite number >= 0 and < 1", id="short"
        ),
        pytest.param(PAIR, [0.1, None], "a list of 2", id="null_item"),
        pytest.param(PAIR, 0.1, "a list of 2", id="no_list"),
        pytest.param(FLAG, 1, "true or false or null", id="one_is_no_flag"),
        pytest.param(FLAG, "true", "true or false or null", id="text_is_no_flag"),
        pytest.param(CHOICE, "avg", "one of min, max", id="choice"),
        pytest.param(Text(default="x"), "", "a text", id="empty_text"),
        pytest.param(IncreasingIntegers(), [], "a growing list of positive whole numbers", id="empty_list"),
        pytest.param(IncreasingIntegers(), [5, 1], "a growing list", id="shrinking"),
        pytest.param(IncreasingIntegers(), [1, 1], "a growing list", id="twice"),
        pytest.param(IncreasingIntegers(), [0, 1], "a growing list", id="zero"),
    ],
)
def test_check_refuses_and_says_what_is_allowed(spec, given, allowed):
    with pytest.raises(ConfigError) as caught:
        spec.check(given, "groups.head.key")
    example = [] if spec.required or spec.default is None else [f"key: {to_yaml(spec.default)}"]
    check_message(caught, "groups.head.key", repr(given), allowed, *example)


SPECS = {
    f"{name}.{key}": spec
    for name, found in [*((n, optimizer_info(n)) for n in list_optimizers()), *SCHEDULES.items()]
    for key, spec in found.hyperparameters.items()
}


@pytest.mark.parametrize("spec", [pytest.param(spec, id=key) for key, spec in SPECS.items() if not spec.required])
def test_every_default_in_the_registries_is_allowed_and_survives_yaml(spec):
    written = to_yaml(spec.default)
    read = yaml.safe_load(written)
    assert OmegaConf.create(f"value: {written}").value == read
    assert spec.check(read, "key") == spec.default


def test_plain_converts_omegaconf_tuples_and_mappings_at_any_depth():
    config = OmegaConf.create({"base": 2, "nested": {"items": ["${base}", "x"]}})
    given = {"a": (1, config.nested, (2,)), 3: config.nested["items"]}
    # JSON knows no other containers than these, while a DictConfig is equal to a dict.
    assert json.dumps(to_plain(given)) == '{"a": [1, {"items": [2, "x"]}, [2]], "3": [2, "x"]}'
    assert json.dumps(to_plain(config)) == '{"base": 2, "nested": {"items": [2, "x"]}}'
    assert type(to_plain((1, 2))) is list


def test_plain_copies():
    given = {"groups": {"head": ["x"]}}
    to_plain(given)["groups"]["head"].append("y")
    assert given == {"groups": {"head": ["x"]}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": {"params": "???"}}, "a.params: Missing mandatory value"),
        ({"a": "${nope}"}, "a: Interpolation key 'nope'"),
    ],
    ids=["missing", "interpolation"],
)
def test_plain_refuses_what_has_no_value(given, said):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}.* Give it a value"):
        to_plain(OmegaConf.create(given))
