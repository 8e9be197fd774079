"""ConfigError, and the helpers that word its messages."""

from lightning_optim import ConfigError
from lightning_optim.core.errors import (
    did_you_mean,
    find_nearest,
    find_source,
    format_choices,
    format_names,
    leftover_hint,
)

NEAREST = {
    "misspelt": ("wieght_decay", ["lr", "weight_decay"], ["weight_decay"]),
    "other case": ("AdamW", ["adam", "adamw", "sgd"], ["adamw", "adam"]),
    "other case among the known": ("t_max", ["T_max", "eta_min"], ["T_max"]),
    "last part of a dotted path": ("torch.optim.AdamW", ["sgd", "adamw"], ["adamw"]),
    "name in another tool": ("wd", ["lr", "weight_decay"], ["weight_decay"]),
    "name in another tool of a key that is unknown here": ("wd", ["lr", "eps"], []),
    "prefix": ("rectif", ["rectify_the_variance", "lr"], ["rectify_the_variance"]),
    "a prefix of two letters is too short": ("re", ["rectify_the_variance", "lr"], []),
    "no more than three": ("beta", ["beta1", "beta2", "beta3", "beta4"], ["beta4", "beta3", "beta2"]),
    "nothing similar": ("zzz", ["lr", "weight_decay"], []),
}


def test_config_error_is_a_value_error_whose_repr_is_the_plain_message():
    error = ConfigError("lr: got 'abc'")
    assert isinstance(error, ValueError)
    assert repr(error) == str(error) == "lr: got 'abc'"


def test_similar_names_are_found_best_first():
    for case, (word, known, expected) in NEAREST.items():
        assert find_nearest(word, known) == expected, case
        suggestion = f" Did you mean '{expected[0]}'?" if expected else ""
        assert did_you_mean(word, known) == suggestion, case
        assert format_choices(word, iter(known)) == f"{suggestion} Available: {', '.join(known)}", case


def test_format_names_counts_what_it_leaves_out():
    assert format_names(["a", "b"], 2) == "a, b"
    assert format_names(iter(["a", "b", "c", "d"]), 2) == "a, b and 2 more"


def test_leftover_hint_names_the_owners_of_a_key():
    assert leftover_hint("rho", ["adadelta", "sophia_g"]) == (
        " rho belongs to adadelta, sophia_g: left over from a config below?"
    )
    assert leftover_hint("rho", []) == ""


CONFIGS = {"few": {"lr": 1, "a": 2}, "many": {"lr": 1, "a": 2, "b": 3}, "other": {"lr": 1, "a": 9}, "one": {"z": 1}}


def test_a_key_is_left_over_from_the_config_that_explains_most_of_the_keys():
    for case, (key, given, expected) in {
        "all of its keys": ("a", {"lr": 5, "a": 2}, "few"),
        "the same keys, with other values": ("a", {"lr": 5, "a": 9}, "other"),
        "more keys": ("b", {"lr": 1, "a": 2, "b": 3}, "many"),
        "a key that the user has added": ("z", {"lr": 1, "a": 2, "z": 1}, None),
        "a config of one key is no evidence": ("z", {"z": 1}, None),
        "no config has all of its keys": ("b", {"lr": 1, "b": 3}, None),
    }.items():
        assert find_source(key, given, CONFIGS) == expected, case
    assert leftover_hint("a", ["x"], "the config few? Then") == " a belongs to x: left over from the config few? Then"
