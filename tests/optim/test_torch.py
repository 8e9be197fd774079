"""Our classes and torch's of the same rule compute the same bits, and load each other's checkpoints."""

from __future__ import annotations

import copy
from functools import cache, partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_optim import ConfigError, OptimizerFactory, optim, optimizer_info
from tests.support.optimizer_runs import (
    MEMBERS_IN_TORCH,
    RESUMES_AT,
    differences,
    native_class,
    new_grads,
    new_params,
    set_grads,
    setting_id,
    trajectory,
)
from tests.support.save_and_load import save_and_load

DECAYS = ({"weight_decay": 0.0}, {"weight_decay": 0.1})
DECOUPLED = (*DECAYS, {"weight_decay": 0.1, "decoupled_weight_decay": True})
# name -> decays, then other options; all combinations are tried.
OPTIONS: dict[str, tuple[tuple[dict[str, Any], ...], list[dict[str, Any]]]] = {
    "sgd": (DECAYS, [{}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}]),
    "adam": (DECOUPLED, [{"amsgrad": on} for on in (False, True)]),
    "adamw": (DECAYS, [{"amsgrad": on} for on in (False, True)]),
    "adamax": (DECAYS, [{"betas": (0.8, 0.95), "eps": 1e-3}, {}]),
    "nadam": (DECOUPLED, [{"momentum_decay": rate} for rate in (4e-3, 0.1)]),
    "radam": (DECOUPLED, [{"betas": (0.9, b2)} for b2 in (0.999, 0.9)]),
    "adagrad": (
        DECAYS,
        [{"lr_decay": rate, "initial_accumulator_value": s} for rate in (0.0, 0.1) for s in (0.0, 0.1)],
    ),
    "adadelta": (DECAYS, [{"rho": 0.9}, {"rho": 0.5, "eps": 1e-3}]),
    "rmsprop": (DECAYS, [{"momentum": mu, "centered": on} for mu in (0.0, 0.9) for on in (False, True)]),
}


def combinations(name: str) -> list[dict[str, Any]]:
    decays, options = OPTIONS[name]
    return [
        {**decay, **given, "maximize": maximize} for decay, given, maximize in product(decays, options, (False, True))
    ]


# Fast: each decay with the first options, each of the other options with the last decay, and maximize with both.
FAST_SETTINGS = [
    (name, {**decay, **options, "maximize": maximize})
    for name, (decays, all_options) in OPTIONS.items()
    for decay, options, maximize in [
        *((decay, all_options[0], False) for decay in decays),
        *((decays[-1], options, True) for options in all_options[1:]),
    ]
]
each_fast_setting = pytest.mark.parametrize(
    ("name", "given"), FAST_SETTINGS, ids=[setting_id(setting) for setting in FAST_SETTINGS]
)
each_name = pytest.mark.parametrize("name", MEMBERS_IN_TORCH)
# Of these two, torch's own foreach and loop differ.
FOREACH_DIFFERS = ("nadam", "radam")


def torch_class(name: str) -> type[torch.optim.Optimizer]:
    return optimizer_info(name).load()


def torch_trajectory(name: str, dtype: torch.dtype, given: dict[str, Any], *, foreach: bool) -> list[list[Tensor]]:
    return _torch_trajectory(name, dtype, tuple(given.items()), foreach)


@cache
def _torch_trajectory(name: str, dtype: torch.dtype, given: tuple[Any, ...], foreach: bool) -> list[list[Tensor]]:
    return trajectory(torch_class(name), dtype=dtype, lr=0.01, foreach=foreach, **dict(given))


def check_same_bits(name: str, given: dict[str, Any], dtype: torch.dtype) -> None:
    expected = torch_trajectory(name, dtype, given, foreach=False)
    for foreach in (False, True):
        ours = trajectory(native_class(name), dtype=dtype, lr=0.01, foreach=foreach, **given)
        assert differences(ours, expected) == [], (given, dtype, foreach)
    if name not in FOREACH_DIFFERS:
        theirs = torch_trajectory(name, dtype, given, foreach=True)
        assert differences(theirs, expected) == [], (given, dtype, "torch's foreach is not torch's loop")


@each_fast_setting
def test_loop_and_foreach_are_torchs_bit_by_bit(name, given):
    check_same_bits(name, given, torch.float32)


@pytest.mark.slow
@each_name
def test_all_options_are_torchs_bit_by_bit(name):
    for given, dtype in product(combinations(name), (torch.float32, torch.float64)):
        check_same_bits(name, given, dtype)


@pytest.mark.parametrize("name", FOREACH_DIFFERS)
def test_torchs_foreach_is_not_torchs_loop_for_these_two(name):
    loop, lists = (torch_trajectory(name, torch.float32, {}, foreach=foreach) for foreach in (False, True))
    assert differences(loop, lists) != [], "torch has changed: take it out of FOREACH_DIFFERS"


@each_name
def test_complex_parameters_are_torchs(name):
    # torch's loops add the decay to complex numbers, which rounds differently; its foreach, like ours, to real ones.
    given = {"dtype": torch.complex64, "lr": 0.01, "weight_decay": 0.1}
    expected = trajectory(torch_class(name), foreach=name not in FOREACH_DIFFERS, **given)
    for foreach in (False, True):
        ours = trajectory(native_class(name), foreach=foreach, **given)
        if name == "sgd":  # torch's multiplies complex numbers
            for some, others in zip(ours, expected, strict=True):
                torch.testing.assert_close(some, others, rtol=1e-6, atol=1e-6)
        else:
            assert differences(ours, expected) == [], foreach


# Checkpoints


def switching(first, second):
    """For `before_step`: another optimizer from a checkpoint in the middle of the run, and again later."""
    make = dict(zip(RESUMES_AT, (first, second), strict=True))

    def before_step(step, optimizer):
        if step not in make:
            return optimizer
        # Other hyperparameters than the checkpoint's: the checkpoint's must be used.
        groups = [{"params": group["params"], "lr": 0.5, "weight_decay": 0.3} for group in optimizer.param_groups]
        other = make[step](groups)
        other.load_state_dict(save_and_load(optimizer.state_dict()))
        return other

    return before_step


def check_switching(name: str, given: dict[str, Any]) -> None:
    theirs = partial(torch_class(name), lr=0.01, foreach=False, **given)
    ours = partial(native_class(name), lr=0.01, **given)
    uninterrupted = torch_trajectory(name, torch.float32, given, foreach=False)
    assert differences(trajectory(theirs, before_step=switching(ours, theirs)), uninterrupted) == [], given
    assert differences(trajectory(ours, before_step=switching(theirs, ours)), uninterrupted) == [], given


@each_fast_setting
def test_a_run_may_switch_to_torchs_class_and_back_by_checkpoint(name, given):
    check_switching(name, given)


@pytest.mark.slow
@each_name
def test_a_run_may_switch_to_torchs_class_and_back_with_all_options(name):
    for given in combinations(name):
        check_switching(name, given)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.AMSGrad, partial(torch.optim.Adam, amsgrad=True)),
        (optim.NAdamW, partial(torch.optim.NAdam, decoupled_weight_decay=True)),
    ],
    ids=["AMSGrad", "NAdamW"],
)
def test_a_variant_is_torchs_class_with_an_option(ours, theirs):
    ours, theirs = (partial(cls, lr=0.01, weight_decay=0.1, foreach=False) for cls in (ours, theirs))
    uninterrupted = trajectory(theirs)
    assert differences(trajectory(ours), uninterrupted) == []
    assert differences(trajectory(ours, before_step=switching(theirs, ours)), uninterrupted) == []
    assert differences(trajectory(theirs, before_step=switching(ours, theirs)), uninterrupted) == []


def trained(cls, num_steps=3, **given):
    params = new_params()
    optimizer = cls(params, lr=0.01, **given)
    for grads in new_grads(num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()
    return params, optimizer


@each_name
def test_saved_state_and_groups_are_those_that_torch_would_save(name):
    given = {"momentum": 0.9} if name == "sgd" else {}
    (_, ours), (_, theirs) = (trained(native_class(name), **given), trained(torch_class(name), foreach=False, **given))
    saved, expected = ours.state_dict(), theirs.state_dict()
    assert set(saved["state"]) == set(expected["state"])
    for index, state in expected["state"].items():
        # Torch's SGD counts no steps, and ignores ours.
        assert set(saved["state"][index]) - {"step"} == set(state) - {"step"}
        assert all(torch.equal(torch.as_tensor(saved["state"][index][key]), state[key]) for key in state)
    shared = set(expected["param_groups"][0]) - {"foreach"}
    assert {key: saved["param_groups"][0][key] for key in shared} == {
        key: expected["param_groups"][0][key] for key in shared
    }


@pytest.mark.parametrize(
    ("cls", "theirs", "key"),
    [
        (optim.Adam, torch.optim.SGD, "exp_avg"),
        (optim.AMSGrad, torch.optim.Adam, "max_exp_avg_sq"),
        (optim.NAdam, torch.optim.Adam, "mu_product"),
        (optim.Adamax, torch.optim.Adam, "exp_inf"),
        (optim.Lion, torch.optim.Adam, "exp_avg_sq"),
        (optim.Adam, torch.optim.NAdam, "mu_product"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_another_optimizers_checkpoint_is_refused_and_nothing_changes(cls, theirs, key):
    given = {"momentum": 0.9} if theirs is torch.optim.SGD else {}
    state_dict = trained(theirs, **given)[1].state_dict()
    _, optimizer = trained(cls)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ConfigError, match=rf"has (no )?({key}|step), which {cls.__name__} (needs|does not know)"):
        optimizer.load_state_dict(state_dict)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(
        torch.equal(torch.as_tensor(after["state"][i][key]), torch.as_tensor(value))
        for i, state in before["state"].items()
        for key, value in state.items()
    )


def test_a_checkpoint_of_another_model_is_refused():
    _, optimizer = trained(optim.Lion)
    state_dict = optimizer.state_dict()
    state_dict["state"][0]["exp_avg"] = torch.zeros(4, 3)
    with pytest.raises(ConfigError, match=r"exp_avg of parameter 0 has the shape \[4, 3\], the parameter \[3, 4\]"):
        optimizer.load_state_dict(state_dict)


def test_a_checkpoint_with_another_number_of_groups_is_refused():
    _, optimizer = trained(optim.Adam)
    state_dict = trained(optim.Adam)[1].state_dict()
    state_dict["param_groups"] *= 2
    with pytest.raises(ConfigError, match="the checkpoint has 2 param groups .* this run 1"):
        optimizer.load_state_dict(state_dict)


def test_step_counts_of_a_fused_optimizer_come_back_to_the_cpu():
    _, theirs = trained(torch.optim.Adam, fused=True)
    _, ours = trained(optim.Adam)
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["fused"] is None
    assert {state["step"].device.type for state in ours.state.values()} == {"cpu"}


def test_the_factory_builds_either_class():
    model = torch.nn.Linear(3, 2)
    assert type(OptimizerFactory("adam", implementation="own")(model)) is optim.Adam
    assert type(OptimizerFactory("adam", implementation="torch")(model)) is torch.optim.Adam
