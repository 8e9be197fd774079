"""ConfigError, and the helpers that word its messages."""

from lightning_optim import ConfigError
from lightning_optim.core.errors import did_you_mean, find_nearest, format_choices, format_names, leftover_hint

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
