"""ConfigError, and the words that help to mend it."""

import pytest

from lightning_optim import ConfigError
from lightning_optim.core.errors import did_you_mean, format_names, nearest


def test_config_error_is_a_value_error_whose_repr_is_the_plain_message():
    error = ConfigError("lr: got 'abc'")
    assert isinstance(error, ValueError)
    assert repr(error) == str(error) == "lr: got 'abc'"


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        pytest.param("wieght_decay", ["lr", "weight_decay"], ["weight_decay"], id="misspelt"),
        pytest.param("AdamW", ["adam", "adamw", "sgd"], ["adamw", "adam"], id="case"),
        pytest.param("t_max", ["T_max", "eta_min"], ["T_max"], id="case_of_the_known"),
        pytest.param("zzz", ["lr", "weight_decay"], [], id="nothing_near"),
    ],
)
def test_nearest_finds_the_likely_names_best_first(word, known, found):
    assert nearest(word, known) == found
    assert did_you_mean(word, known) == (f" Did you mean '{found[0]}'?" if found else "")


def test_listed_counts_what_it_leaves_out():
    assert format_names(["a", "b"], 2) == "a, b"
    assert format_names(iter(["a", "b", "c", "d"]), 2) == "a, b and 2 more"
