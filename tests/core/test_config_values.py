"""Config values become plain Python types, and YAML text in messages."""

import json
import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from lightning_optim import ConfigError
from lightning_optim.core.config_values import to_plain, to_yaml


def test_values_are_formatted_as_in_a_yaml_config():
    for value, text in [
        (None, "null"),
        (True, "true"),
        (1e-8, "1.0e-08"),
        (0.1, "0.1"),
        ((0.9, 1e-8, None), "[0.9, 1.0e-08, null]"),
        ({"k": 5, "alpha": 0.5}, "{k: 5, alpha: 0.5}"),
        ("val/loss", "val/loss"),
    ]:
        assert to_yaml(value) == text


def test_omegaconf_tuples_and_mappings_are_converted_at_any_depth():
    config = OmegaConf.create({"base": 2, "nested": {"items": ["${base}", "x"]}})
    given = {"a": (1, config.nested, (2,)), 3: config.nested["items"]}
    # Compared as JSON, which has no other containers than these: a DictConfig is equal to a dict.
    assert json.dumps(to_plain(given)) == '{"a": [1, {"items": [2, "x"]}, [2]], "3": [2, "x"]}'
    assert json.dumps(to_plain(config)) == '{"base": 2, "nested": {"items": [2, "x"]}}'
    assert type(to_plain((1, 2))) is list


def test_numpy_values_are_converted():
    assert json.dumps(to_plain([np.float64(0.5), np.array([1, 2])])) == "[0.5, [1, 2]]"


def test_the_result_is_a_copy():
    given = {"groups": {"head": ["x"]}}
    to_plain(given)["groups"]["head"].append("y")
    assert given == {"groups": {"head": ["x"]}}


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ({"a": {"params": "???"}}, "", "a.params: Missing mandatory value"),
        ({"a": {"params": "???"}}, "groups", "groups.a.params: Missing mandatory value"),
        ({"a": "${nope}"}, "", "a: Interpolation key 'nope'"),
    ],
    ids=["missing", "missing below a key", "interpolation"],
)
def test_a_value_that_is_missing_is_refused(given, key, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.* Give it a value"):
        to_plain(OmegaConf.create(given), key)


def test_the_key_of_a_missing_value_is_relative_to_the_given_block():
    app = OmegaConf.create({"model": {"optimizer": {"groups": {"a": {"params": "???"}}}}})
    with pytest.raises(ConfigError, match=r"^groups\.a\.params: Missing mandatory value"):
        to_plain(app.model.optimizer.groups, "groups")
