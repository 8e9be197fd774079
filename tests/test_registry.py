"""The registry says of torch's optimizers what they are."""

import inspect
from functools import cache

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optimizer_info
from lightning_optim.hyperparameters import Choice, Flag, Number, Numbers

from .messages import check_message
from .models import model_for, same, train

TORCH = [name for name in list_optimizers() if optimizer_info(name).path.startswith("torch.optim:")]
KEYS = [(name, key) for name in TORCH for key in optimizer_info(name).hyperparameters]

# What makes the other hyperparameters of an optimizer count.
SETTING = {
    "sgd": {"momentum": 0.9},
    **{name: {"weight_decay": 0.1} for name in ("adam", "nadam", "radam")},
}
# A value that is not the default, for what is no flag.
OTHER = {
    "adjust_lr_fn": "match_rms_adamw",
    "alpha": 0.5,
    "beta2_decay": -0.3,
    "betas": [0.6, 0.8],
    "d": 1.5,
    "dampening": 0.25,
    "eps": 0.1,
    "etas": [0.4, 1.5],
    "history_size": 1,
    "lambd": 0.1,
    "line_search_fn": "strong_wolfe",
    "lr": 0.03,
    "lr_decay": 0.5,
    "max_eval": 2,
    "max_iter": 2,
    "momentum": 0.25,
    "momentum_decay": 0.5,
    "ns_coefficients": [3.0, -4.0, 2.0],
    "ns_steps": 2,
    "rho": 0.5,
    "step_sizes": [0.02, 0.021],
    "t0": 0.0,
    "tolerance_change": 0.5,
    "tolerance_grad": 0.5,
    "weight_decay": 0.3,
}


def value_for(name, key):
    spec = optimizer_info(name).hyperparameters[key]
    if isinstance(spec, Flag):
        return not spec.default
    return [1e-2, 0.3] if (name, key) == ("adafactor", "eps") else OTHER[key]


def after_training(name, **given):
    """Weights, and the tensors of the optimizer's state by parameter and key."""
    model = model_for(name)
    optimizer = OptimizerFactory(name, **{**SETTING.get(name, {}), **given})(model)
    weights = train(model, optimizer, 6)  # RAdam adapts from the sixth step on
    state = [(key, value) for p in model.parameters() for key, value in sorted(optimizer.state[p].items())]
    tensors = [(key, value) for key, value in state if isinstance(value, torch.Tensor)]
    return [key for key, _ in tensors], [*weights, [value for _, value in tensors]]


@cache
def by_default(name):
    return after_training(name)


def equal(ours, theirs):
    return ours[0] == theirs[0] and same(ours[1], theirs[1])


def test_torch_s_optimizers_are_all_there():
    assert " ".join(sorted(TORCH)) == (
        "adadelta adafactor adagrad adam adamax adamw asgd lbfgs muon nadam radam rmsprop rprop sgd sparse_adam"
    )


@pytest.mark.parametrize("name", TORCH)
def test_hyperparameters_and_defaults_are_those_of_the_signature(name):
    info = optimizer_info(name)
    signature = list(inspect.signature(info.load()).parameters.values())
    assert [(p.name, p.default) for p in signature[1:]] == list(info.defaults.items())
    assert info.fused == ("fused" in info.hyperparameters)
    assert info.name == name


@pytest.mark.parametrize(("name", "key"), [k for k in KEYS if optimizer_info(k[0]).hyperparameters[k[1]].per_group])
def test_per_group_hyperparameters_are_read_from_the_group(name, key):
    value = value_for(name, key)
    from_rule = after_training(name, groups={"every": {"params": "*", key: value}})
    assert equal(after_training(name, **{key: value}), from_rule)
    assert not equal(by_default(name), from_rule), "the value has no effect: take another"


@pytest.mark.parametrize(("name", "key"), [k for k in KEYS if not optimizer_info(k[0]).hyperparameters[k[1]].per_group])
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


EDGES = [(name, key, edge) for name, key in KEYS for edge in edges(optimizer_info(name).hyperparameters[key])]


@pytest.mark.parametrize(("name", "key", "edge"), [pytest.param(*e, id="-".join(map(str, e))) for e in EDGES])
def test_what_the_registry_allows_the_class_takes(name, key, edge):
    value = optimizer_info(name).hyperparameters[key].check(edge, key)
    optimizer = optimizer_info(name).load()(model_for(name).parameters(), **{key: value})
    assert optimizer.param_groups[0][key] == edge


CREATING = {"sgd": {"momentum": 0.9}, "rmsprop": {"momentum": 0.9, "centered": True}} | {
    name: {"amsgrad": True} for name in ("adam", "adamw")
}


@pytest.mark.parametrize("name", [name for name in TORCH if name != "lbfgs"])  # whose state is one flat vector
def test_buffers_are_the_tensors_of_the_state(name):
    model = model_for(name)
    optimizer = OptimizerFactory(name, **CREATING.get(name, {}))(model)
    train(model, optimizer, 2)
    held = {
        key
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and value.ndim > 0
    }
    assert held == set(optimizer_info(name).buffers)


def test_list_optimizers_takes_a_glob():
    assert list_optimizers() == sorted(list_optimizers())
    assert set(list_optimizers("adam*")) >= {"adam", "adamax", "adamw"}
    assert not set(list_optimizers("adam*")) & {"sgd", "nadam", "sparse_adam"}
    assert list_optimizers("nothing*") == []


@pytest.mark.parametrize(("given", "near"), [("adamv", "'adam'"), ("AdamW", "'adamw'"), ("sgdd", "'sgd'")])
def test_an_unknown_name_gets_the_nearest_one(given, near):
    with pytest.raises(ConfigError) as caught:
        optimizer_info(given)
    check_message(caught, "name", repr(given), f"Did you mean {near}?", *TORCH)


@pytest.mark.parametrize("given", [None, 3, ["adam"]], ids=repr)
def test_a_name_that_is_no_text_is_refused(given):
    with pytest.raises(ConfigError, match=r"^name: "):
        optimizer_info(given)
