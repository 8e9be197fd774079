"""The registry says of torch's optimizers and of ours what they are."""

import inspect
from functools import cache

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optimizer_info
from lightning_optim.catalog.registry import name_of
from lightning_optim.core.hyperparameters import Choice, Flag, Number, Numbers
from tests.support.messages import check_message
from tests.support.models import model_for, same, train

NAMES = list_optimizers()
TORCH = [name for name in NAMES if not optimizer_info(name).is_ours]
OWN = [name for name in NAMES if optimizer_info(name).own]
CLASSES = [*((name, "torch") for name in TORCH), *((name, "own") for name in OWN)]


def keys_of(name, implementation):
    """What a config may set where this class runs it."""
    info = optimizer_info(name)
    refused = info.torch_only if implementation == "own" else info.own_only
    return [key for key in info.hyperparameters if key not in refused]


KEYS = [(*cls, key) for cls in CLASSES for key in keys_of(*cls)]

# What makes the other hyperparameters of an optimizer count.
SETTING = {
    "extra_sgd": {"momentum": 0.9},
    "prodigy": {"d0": 0.1},
    "sgd": {"momentum": 0.9},
}
# They count where a gradient is not finite, parameters have 16 bits, a step leaves the gradient's direction: see
# tests/optim/test_modifiers.py.
ELSEWHERE = ("skip_nonfinite", "master_weights", "cautious_update")
REFUSED = [(name, "lookahead") for name in ("extra_adam", "extra_sgd", "storm")]
# What makes a hyperparameter count.
WITH = {
    "amsbound": {"betas": [0.9, 0.8]},  # so that second moments fall, and RAdam adapts from the seventh step on
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
# A value that is not the default, for what is no flag.
OTHER = {
    "adaptive_clip": 0.001,
    "adjust_lr_fn": "match_rms_adamw",
    "alpha": 0.5,
    "alpha_warmup": 4,
    "beta2_decay": -0.3,
    "beta3": 0.5,
    "beta3_warmup": 4,
    "betas": [0.6, 0.8],
    "c": 1.0,
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
    "momentum": 0.25,
    "momentum_decay": 0.5,
    "ns_coefficients": [3.0, -4.0, 2.0],
    "ns_steps": 2,
    "num_blocks": 2,
    "nus": [0.7, 0.9],
    "partial": 0.125,
    "rho": 0.5,
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
OTHER_OF = {
    ("adafactor", "eps"): [1e-2, 0.3],
    ("adan", "betas"): [0.6, 0.8, 0.9],
    ("ademamix", "betas"): [0.6, 0.8, 0.9],
}


def value_for(name, key):
    spec = optimizer_info(name).hyperparameters[key]
    if isinstance(spec, Flag):
        return not spec.default
    return OTHER_OF[name, key] if (name, key) in OTHER_OF else OTHER[key]


@cache
def baseline(name, implementation, key):
    return after_training(name, implementation, key)


def after_training(name, implementation, key, **given):
    """Weights, and the tensors of the optimizer's state by parameter and key."""
    model = model_for(name)
    values = {**SETTING.get(name, {}), **WITH.get(key, {}), **given}
    optimizer = OptimizerFactory(name, implementation=implementation, **values)(model)
    if hasattr(optimizer, "update_hessian"):
        model.loss().backward()
        optimizer.update_hessian(1000.0)
    weights = train(model, optimizer, 9)
    state = [(key, value) for p in model.parameters() for key, value in sorted(optimizer.state[p].items())]
    tensors = [(key, value) for key, value in state if isinstance(value, torch.Tensor)]
    return [key for key, _ in tensors], [*weights, [value for _, value in tensors]]


def equal(ours, theirs):
    return ours[0] == theirs[0] and same(ours[1], theirs[1])


def test_torch_s_optimizers_are_all_there():
    assert " ".join(sorted(TORCH)) == (
        "adadelta adafactor adagrad adam adamax adamw asgd lbfgs muon nadam radam rmsprop rprop sgd sparse_adam"
    )
    assert {optimizer_info(name).path.partition(":")[0] for name in TORCH} == {"torch.optim"}


def test_ours_are_all_there():
    both = "adadelta adagrad adam adamax adamw nadam radam rmsprop"
    assert " ".join(name for name in OWN if name in TORCH) == both
    assert " ".join(name for name in OWN if name not in TORCH) == (
        "adabelief adabound adaboundw adai adam_mini adamod adamp adan ademamix adopt amsbound amsgrad diffgrad ef_sgd "
        "extra_adam extra_sgd lamb laprop lars lion madgrad mars nadamw novograd omd optimistic_adam padam prodigy "
        "qhadam signum sophia_g stable_adamw storm yogi"
    )


@pytest.mark.parametrize(("name", "implementation"), CLASSES)
def test_hyperparameters_and_defaults_are_those_of_the_signature(name, implementation):
    info, own = optimizer_info(name), implementation == "own"
    signature = list(inspect.signature(info.load(own=own)).parameters.values())
    assert signature[0].name == "params"
    assert [(p.name, p.default) for p in signature[1:]] == list(info.signature(own=own).items())
    assert info.name == name


@pytest.mark.parametrize("name", TORCH)
def test_fused_says_whether_torch_s_class_has_such_a_kernel(name):
    info = optimizer_info(name)
    assert info.fused == ("fused" in inspect.signature(info.load()).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_each_hyperparameter_is_one_of_torch_s_class_or_of_ours(name):
    info = optimizer_info(name)
    classes = [info.signature(own=own) for own, there in ((False, name in TORCH), (True, name in OWN)) if there]
    assert set().union(*classes) == set(info.hyperparameters)
    if len(classes) == 2:
        torch_s, ours = map(set, classes)
        assert ours - torch_s == info.own_only
        assert torch_s - ours - {"decoupled_weight_decay"} == info.torch_only


@pytest.mark.parametrize("name", OWN)
def test_our_class_computes_by_the_defaults_of_its_signature(name):
    info = optimizer_info(name)
    group = info.load(own=True)(model_for(name).parameters()).param_groups[0]
    assert {key: group[key] for key in info.signature(own=True)} == {
        **info.signature(own=True),
        "weight_decay_mode": info.decay,
    }
    assert info.decay in info.decay_modes


@pytest.mark.parametrize(
    ("name", "implementation", "key"),
    [
        k
        for k in KEYS
        if optimizer_info(k[0]).hyperparameters[k[2]].per_group
        and k[2] not in ELSEWHERE
        and (k[0], k[2]) not in REFUSED
    ],
)
def test_per_group_hyperparameters_are_read_from_the_group(name, implementation, key):
    value = value_for(name, key)
    from_rule = after_training(name, implementation, key, groups={"every": {"params": "*", key: value}})
    assert equal(after_training(name, implementation, key, **{key: value}), from_rule)
    # Where a loss has no noise, there is none that STORM's c could forget.
    without_effect = (name, key) == ("storm", "c")
    assert equal(baseline(name, implementation, key), from_rule) == without_effect, (
        "the value has no effect: take another"
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name in NAMES for key, spec in optimizer_info(name).hyperparameters.items() if not spec.per_group],
)
def test_other_hyperparameters_are_refused_in_a_rule(name, key):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, groups={"every": {"params": "*", key: True}})
    check_message(caught, f"groups.every.{key}", f"to the top: {key}: true")


def edges(spec):
    """The closed bounds of a hyperparameter, or its options."""
    if isinstance(spec, Choice):
        return spec.options
    if isinstance(spec, Numbers):
        ends = [(edges(item) or (item.default,)) for item in spec.items]
        return {tuple(end[0] for end in ends), tuple(end[-1] for end in ends)}
    if not isinstance(spec, Number):
        return ()
    bounds = ((spec.low, spec.open_low), (spec.high, spec.open_high))
    return tuple(bound for bound, is_open in bounds if bound is not None and not is_open)


EDGES = [
    (name, implementation, key, edge)
    for name, implementation in CLASSES
    for key in optimizer_info(name).signature(own=implementation == "own")
    for edge in edges(optimizer_info(name).hyperparameters[key])
    if not optimizer_info(name).conflict({**optimizer_info(name).defaults, key: edge})
]


@pytest.mark.parametrize(
    ("name", "implementation", "key", "edge"), [pytest.param(*e, id="-".join(map(str, e))) for e in EDGES]
)
def test_what_the_registry_allows_the_class_takes(name, implementation, key, edge):
    info = optimizer_info(name)
    value = info.hyperparameters[key].check(edge, key)
    optimizer = info.load(own=implementation == "own")(model_for(name).parameters(), **{key: value})
    assert optimizer.param_groups[0][key] == edge


def creating(name, implementation):
    """What makes the buffers that are not always there."""
    info = optimizer_info(name)
    needed = {key for key in info.buffers.values() if key in keys_of(name, implementation)}
    return {key: value_for(name, key) for key in needed if not info.defaults[key]}


@pytest.mark.parametrize("all_of_them", [False, True], ids=["default", "all_of_them"])
@pytest.mark.parametrize(
    ("name", "implementation"),
    [cls for cls in CLASSES if cls[0] != "lbfgs"],  # whose state is one flat vector
)
def test_buffers_are_the_tensors_of_the_state(name, implementation, all_of_them):
    given = creating(name, implementation) if all_of_them else {}
    info, model = optimizer_info(name), model_for(name)
    optimizer = OptimizerFactory(name, implementation=implementation, **given)(model)
    train(model, optimizer, 2)
    found = {
        key
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and (value.ndim > 0 or key in info.reduced)
    }
    assert found == set(info.buffers_under({**info.defaults, **given}))
    if all_of_them and implementation == "own":
        assert found == set(info.buffers)


@pytest.mark.parametrize(("name", "implementation"), CLASSES)
def test_a_class_has_the_name_of_its_entry(name, implementation):
    assert name_of(optimizer_info(name).load(own=implementation == "own")) == name


def test_a_class_of_the_same_name_elsewhere_has_none():
    assert name_of(type("Adam", (torch.optim.Adam,), {"__module__": "elsewhere"})) is None


def test_list_optimizers_takes_a_glob():
    assert list_optimizers() == sorted(list_optimizers())
    assert set(list_optimizers("adam*")) >= {"adam", "adamax", "adamw"}
    assert not set(list_optimizers("adam*")) & {"sgd", "nadam", "sparse_adam"}
    assert list_optimizers("nothing*") == []


@pytest.mark.parametrize(("given", "near"), [("adamv", "'adam'"), ("AdamW", "'adamw'"), ("sgdd", "'sgd'")])
def test_an_unknown_name_gets_the_nearest_one(given, near):
    with pytest.raises(ConfigError) as caught:
        optimizer_info(given)
    check_message(caught, "name", repr(given), f"Did you mean {near}?", *NAMES)


@pytest.mark.parametrize("given", [None, 3, ["adam"]], ids=repr)
def test_a_name_that_is_no_text_is_refused(given):
    with pytest.raises(ConfigError, match=r"^name: "):
        optimizer_info(given)
