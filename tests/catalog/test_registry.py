"""The catalog agrees with the classes of torch and of this package: signatures, defaults, bounds, buffers."""

import inspect
from functools import cache

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optimizer_info
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.catalog.registry import find_optimizer_name
from lightning_optim.core.hyperparameters import Choice, Flag, Number, Numbers
from lightning_optim.core.version import is_torch_at_least
from tests.support.cases import each_value
from tests.support.messages import check_message
from tests.support.models import model_for, same, train

NEXT_TORCH = "2.15"
"""The first version of torch whose signatures the catalog was not compared with."""
NAMES = sorted(BUILT_IN)
TORCH = [name for name in NAMES if not BUILT_IN[name].is_native_only]
OWN = [name for name in NAMES if BUILT_IN[name].own]
CLASSES = [*((name, "torch") for name in TORCH), *((name, "own") for name in OWN)]


def keys_of(name, implementation):
    """The hyperparameters that a config may set where this class runs the optimizer."""
    info = BUILT_IN[name]
    refused = info.torch_only if implementation == "own" else info.own_only
    return [key for key, spec in info.hyperparameters.items() if key not in refused and spec.is_available]


# Other values with which the hyperparameters of an optimizer have an effect.
SETTING = {
    "extra_sgd": {"momentum": 0.9},
    "prodigy": {"d0": 0.1},
    "sgd": {"momentum": 0.9},
}
# They need a gradient that is not finite, 16-bit parameters, or a step that leaves the gradient's direction: see
# tests/optim/test_modifiers.py. Or a second gradient: tests/optim/test_sharpness.py. Or parameters of three dimensions:
# tests/optim/test_matrices.py; or evaluation weights: tests/optim/test_schedule_free.py.
TESTED_ELSEWHERE = ("skip_nonfinite", "master_weights", "cautious_update", "sharpness", "matrix", "schedule_free")
REFUSED = [(name, "lookahead") for name in ("extra_adam", "extra_sgd", "storm")]
# Other values with which a hyperparameter has an effect.
WITH = {
    "amsbound": {"betas": [0.9, 0.8]},  # so that second moments decrease, and RAdam is adaptive from step 7 on
    "amsgrad": {"betas": [0.9, 0.8]},
    "cautious_decay": {"weight_decay": 0.1, "weight_decay_mode": "decoupled"},
    "clip": {"maximize": True, "lr": 0.3},  # so that gradients grow
    "decoupled_weight_decay": {"weight_decay": 0.1},
    "final_lr": {"gamma": 1.0},
    "optimized_update": {"eps": 0.1},
    "safeguard_warmup": {"lr": 0.5},
    "wd_ratio": {"weight_decay": 0.1, "delta": 10.0},
    "weight_decay_mode": {"weight_decay": 0.1},
}
# Values that are not the default, for hyperparameters other than flags.
OTHER = {
    "adaptive_clip": 0.001,
    "adjust_lr_fn": "match_rms_adamw",
    "alpha": 0.5,
    "alpha_warmup": 4,
    "beta2": 0.5,
    "beta2_decay": -0.3,
    "beta3": 0.5,
    "beta3_warmup": 4,
    "betas": [0.6, 0.8],
    "c": 1.0,
    "coefficients": "polar_express",
    "comp": "sign",
    "d": 1.5,
    "dampening": 0.25,
    "delta": 10.0,
    "eps": 0.1,
    "etas": [0.4, 1.5],
    "final_lr": 0.3,
    "gamma": 1.0,
    "history_size": 1,
    "initial_accumulator_value": 0.5,
    "lambd": 0.1,
    "line_search_fn": "strong_wolfe",
    "lookahead": {"k": 2},
    "lr": 0.03,
    "lr_decay": 0.5,
    "max_eval": 2,
    "max_iter": 2,
    "max_size": 4,
    "momentum": 0.25,
    "momentum_decay": 0.5,
    "ns_coefficients": [3.0, -4.0, 2.0],
    "ns_dtype": "parameter",
    "ns_steps": 2,
    "num_blocks": 2,
    "nus": [0.7, 0.9],
    "partial": 0.125,
    "precondition_frequency": 2,
    "rho": 0.5,
    "shampoo_beta": 0.5,
    "split": 2,
    "step_sizes": [0.02, 0.021],
    "t0": 0.0,
    "tolerance_change": 0.5,
    "tolerance_grad": 0.5,
    "trust_coefficient": 0.1,
    "w": 1.0,
    "wd_ratio": 0.5,
    "weight_decay": 0.3,
    "weight_decay_mode": "l1",
}
OTHER_FOR = {
    ("normuon", "adjust_lr_fn"): "original",
    ("adafactor", "eps"): [1e-2, 0.3],
    ("adan", "betas"): [0.6, 0.8, 0.9],
    ("ademamix", "betas"): [0.6, 0.8, 0.9],
}


# RAdam and AdaBelief are adaptive from the seventh step on.
NUM_STEPS = {"adabelief": 9, "radam": 9}
KEYS = [
    (name, implementation, key)
    for name, implementation in CLASSES
    for key in keys_of(name, implementation)
    if BUILT_IN[name].hyperparameters[key].per_group and key not in TESTED_ELSEWHERE and (name, key) not in REFUSED
]
FAST_KEYS = {
    "sgd-torch-momentum",
    "adam-torch-lr",
    "adam-own-lr",
    "adam-own-betas",
    "adam-own-weight_decay",
    "adam-own-weight_decay_mode",
    "adam-own-decoupled_weight_decay",
    "adam-own-cautious_decay",
    "adam-own-amsgrad",
    "adam-own-lookahead",
    "adam-own-adaptive_clip",
    "adam-own-maximize",
    "ef_sgd-own-comp",
    "storm-own-c",
}


def value_for(name, key):
    spec = BUILT_IN[name].hyperparameters[key]
    if isinstance(spec, Flag):
        return not spec.default
    return OTHER_FOR.get((name, key), OTHER.get(key))


def values_around(name, key):
    """The other values with which a hyperparameter has an effect."""
    return {**SETTING.get(name, {}), **WITH.get(key, {})}


@cache
def after_default_training(name, implementation, values):
    return after_training(name, implementation, **dict(values))


def after_training(name, implementation, **values):
    """Weights, and the tensors of the optimizer's state by parameter and key."""
    model = model_for(name)
    optimizer = OptimizerFactory(name, implementation=implementation, **values)(model)
    if hasattr(optimizer, "update_hessian"):
        model.loss().backward()
        optimizer.update_hessian(1000.0)
    weights = train(model, optimizer, NUM_STEPS.get(name, 4))
    state = [(key, value) for p in model.parameters() for key, value in sorted(optimizer.state[p].items())]
    tensors = [(key, value) for key, value in state if isinstance(value, torch.Tensor)]
    return [key for key, _ in tensors], [*weights, [value for _, value in tensors]]


def equal(run, other):
    return run[0] == other[0] and same(run[1], other[1])


def test_every_optimizer_of_torch_is_in_the_catalog():
    assert " ".join(TORCH) == (
        "adadelta adafactor adagrad adam adamax adamw asgd lbfgs muon nadam radam rmsprop rprop sgd sparse_adam"
    )
    assert {BUILT_IN[name].path.partition(":")[0] for name in TORCH} == {"torch.optim"}


def test_every_native_optimizer_is_in_the_catalog():
    both = "adadelta adagrad adam adamax adamw muon nadam radam rmsprop sgd"
    assert " ".join(name for name in OWN if name in TORCH) == both
    assert " ".join(name for name in OWN if name not in TORCH) == (
        "adabelief adabound adaboundw adai adam_mini adamod adamp adamuon adan ademamix adopt amsbound amsgrad "
        "diffgrad ef_sgd extra_adam extra_sgd lamb laprop lars lion madgrad mars nadamw normuon novograd omd "
        "optimistic_adam padam prodigy qhadam shampoo signum soap sophia_g stable_adamw storm yogi"
    )


def test_hyperparameters_and_defaults_are_those_of_the_signature():
    for name, implementation in CLASSES:
        info, own = BUILT_IN[name], implementation == "own"
        params, *arguments = inspect.signature(info.load(own=own)).parameters.values()
        assert params.name == "params"
        # A torch that is newer than the catalog may take more.
        known = [p for p in arguments if own or not is_torch_at_least(NEXT_TORCH) or p.name in info.hyperparameters]
        assert [(p.name, p.default) for p in known] == list(info.signature(own=own).items()), (name, implementation)
        assert info.name == name


def test_fused_says_whether_torch_has_a_fused_kernel():
    for name in TORCH:
        info = BUILT_IN[name]
        assert info.fused == ("fused" in inspect.signature(info.load()).parameters), name


def test_every_hyperparameter_is_accepted_by_one_of_the_classes():
    for name in NAMES:
        info = BUILT_IN[name]
        accepted = [set(info.signature(own=own)) for own, names in ((False, TORCH), (True, OWN)) if name in names]
        available = {key for key, spec in info.hyperparameters.items() if spec.is_available}
        assert set().union(*accepted) == available, name
        if len(accepted) == 2:
            by_torch, by_own = accepted
            assert by_own - by_torch == info.own_only, name
            assert by_torch - by_own - {"decoupled_weight_decay"} == info.torch_only, name


def test_a_native_class_uses_the_defaults_of_its_signature():
    for name in OWN:
        info = BUILT_IN[name]
        group = info.load(own=True)(model_for(name).parameters()).param_groups[0]
        defaults = {**info.signature(own=True), "weight_decay_mode": info.decay}
        assert {key: group[key] for key in info.signature(own=True)} == defaults, name
        assert info.decay in info.decay_modes, name


@pytest.mark.parametrize(("name", "implementation", "key"), each_value(KEYS, fast=FAST_KEYS, id="-".join))
def test_per_group_hyperparameters_are_read_from_the_group(name, implementation, key):
    value, around = value_for(name, key), values_around(name, key)
    from_rule = after_training(name, implementation, **around, groups={"every": {"params": "*", key: value}})
    assert equal(after_training(name, implementation, **{**around, key: value}), from_rule)
    # STORM's c has no effect on a loss without noise, Nesterov's momentum none on signs of the same direction.
    without_effect = (name, key) in (("storm", "c"), ("adamuon", "nesterov"))
    defaults = tuple((other, tuple(v) if isinstance(v, list) else v) for other, v in around.items())
    assert equal(after_default_training(name, implementation, defaults), from_rule) == without_effect, (
        "the value has no effect: take another"
    )


def test_other_hyperparameters_are_refused_in_a_rule():
    keys = [(name, key) for name in NAMES for key, spec in BUILT_IN[name].hyperparameters.items() if not spec.per_group]
    for name, key in keys:
        with pytest.raises(ConfigError) as caught:
            pytest.fail(repr(OptimizerFactory(name, groups={"every": {"params": "*", key: True}})))
        check_message(caught, f"groups.every.{key}", f"to the top level: {key}: true")
    assert len(keys) > 100


def edges(spec):
    """The closed bounds of a hyperparameter, or its options."""
    if isinstance(spec, Choice):
        return spec.available_options
    if isinstance(spec, Numbers):
        bounds = [(edges(item) or (item.default,)) for item in spec.items]
        return {tuple(pair[0] for pair in bounds), tuple(pair[-1] for pair in bounds)}
    if not isinstance(spec, Number):
        return ()
    bounds = ((spec.low, spec.open_low), (spec.high, spec.open_high))
    return tuple(bound for bound, is_open in bounds if bound is not None and not is_open)


def test_a_class_accepts_every_value_that_the_catalog_allows():
    count = 0
    for name, implementation in CLASSES:
        info, params = BUILT_IN[name], list(model_for(name).parameters())
        for key in info.signature(own=implementation == "own"):
            spec = info.hyperparameters[key]
            for edge in edges(spec):
                if info.conflict({**info.defaults, key: edge}):
                    continue
                count += 1
                optimizer = info.load(own=implementation == "own")(params, **{key: spec.check(edge, key)})
                assert optimizer.param_groups[0][key] == edge, (name, implementation, key)
    assert count > 500


def conditions_of(name, implementation):
    """Values with which all buffers exist."""
    info = BUILT_IN[name]
    conditions = {key for key in info.buffers.values() if key in keys_of(name, implementation)}
    return {key: value_for(name, key) for key in conditions if not info.defaults[key]}


@pytest.mark.slow
def test_buffers_are_the_tensors_of_the_state():
    for name, implementation in CLASSES:
        if name == "lbfgs":  # its state is one flat vector
            continue
        info, conditions = BUILT_IN[name], conditions_of(name, implementation)
        for given in [{}, conditions] if conditions else [{}]:
            model = model_for(name)
            optimizer = OptimizerFactory(name, implementation=implementation, **given)(model)
            train(model, optimizer, 2)
            found = {
                key
                for state in optimizer.state.values()
                for key, value in state.items()
                if isinstance(value, torch.Tensor) and (value.ndim > 0 or key in info.reduced)
            }
            assert found == set(info.active_buffers({**info.defaults, **given})), (name, implementation, given)
        if implementation == "own":
            assert found == set(info.buffers), name


def test_a_class_is_found_by_its_name_and_module():
    for name, implementation in CLASSES:
        assert find_optimizer_name(BUILT_IN[name].load(own=implementation == "own")) == name
    assert find_optimizer_name(type("Adam", (torch.optim.Adam,), {"__module__": "elsewhere"})) is None


def test_list_optimizers_takes_a_glob():
    assert list_optimizers() == sorted(list_optimizers())
    assert set(list_optimizers()) >= set(NAMES)
    assert set(list_optimizers("adam*")) >= {"adam", "adamax", "adamw"}
    assert not set(list_optimizers("adam*")) & {"sgd", "nadam", "sparse_adam"}
    assert list_optimizers("nothing*") == []


def test_an_unknown_name_is_refused_with_the_nearest_one():
    for given, near in [("adamv", "'adam'"), ("AdamW", "'adamw'"), ("sgdd", "'sgd'")]:
        with pytest.raises(ConfigError) as caught:
            optimizer_info(given)
        check_message(caught, "name", f"there is no optimizer {given!r}.", f"Did you mean {near}?", *NAMES)


def test_a_name_that_is_not_a_string_is_refused():
    for given in (None, 3, ["adam"]):
        with pytest.raises(ConfigError, match=r"^name: "):
            optimizer_info(given)
