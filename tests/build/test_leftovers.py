"""A key that is left over from a config of this package names that config."""

import pytest

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.build.leftovers import explain_source
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.catalog.ready_configs import READY_CONFIGS
from lightning_optim.core.config_values import to_plain

RULES = {"no_decay": {"kinds": ["bias"]}}


def values_of(name):
    """What `conf/optimizer/NAME.yaml` sets."""
    ready = READY_CONFIGS.get(name)
    values = to_plain(BUILT_IN[ready.algorithm if ready else name].defaults)
    return {**values, **ready.values} if ready else values


def test_the_config_of_every_algorithm_is_found_under_every_other_name():
    for source in BUILT_IN:
        values = values_of(source)
        for name, info in BUILT_IN.items():
            unknown = [key for key in values if key not in info.hyperparameters]
            if unknown:
                # Some have the same keys and defaults.
                found = explain_source(unknown[0], name, values, {}).partition("?")[0].rpartition("/")[2]
                assert values_of(found) == values, (source, name)


@pytest.mark.parametrize(
    ("name", "values", "rules", "found"),
    [
        ("sgd", values_of("adamw"), RULES, "optimizer/adamw_groups? Then choose optimizer=sgd"),
        ("sgd", values_of("adamw"), {**RULES, "depth": {}}, "optimizer/adamw_llrd?"),
        ("sgd", values_of("adamw"), {**RULES, "hidden": {}, "mine": {}}, "optimizer/muon_adamw?"),
        ("sgd", {**values_of("ranger"), "lr": 0.5}, {}, "optimizer/ranger?"),
        ("adamw", {**values_of("adamw"), "momentum": 0.9}, RULES, "left over from a config below?"),
        ("adamw", {"momentum": 0.9}, {}, "left over from a config below?"),
    ],
    ids=["adamw_groups", "adamw_llrd", "muon_adamw and a rule", "ranger", "a key added to adamw", "by hand"],
)
def test_the_message_names_the_config(name, values, rules, found):
    groups = {rule: {"params": "*", "lr": 1.0, **entry} for rule, entry in rules.items()}
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, groups=groups, **values)
    assert found in str(caught.value)


def test_a_registered_optimizer_has_no_config_to_choose():
    assert explain_source("momentum", "mine", values_of("sgd"), {}).endswith("Then remove it: ~optimizer.momentum.")
