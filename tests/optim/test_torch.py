"""Ours and torch's compute the same bits, and one goes on from the other's checkpoint."""

from __future__ import annotations

import copy
from functools import partial
from itertools import product

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, optim, optimizer_info
from tests.support.optimizer_runs import (
    ALSO_TORCHS,
    class_of,
    differences,
    drive,
    new_grads,
    new_params,
    set_grads,
    setting_id,
    through_a_file,
)

DECAYS = ({"weight_decay": 0.0}, {"weight_decay": 0.1})
DECOUPLED = (*DECAYS, {"weight_decay": 0.1, "decoupled_weight_decay": True})
OPTIONS = {
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
SETTINGS = [
    (name, {**decay, **given, "maximize": maximize})
    for name in ALSO_TORCHS
    for decay, given, maximize in product(*OPTIONS[name], (False, True))
]
DTYPES = (torch.float32, torch.float64)
# The two of torch's in which its own foreach and loop differ.
FOREACH_DIFFERS = ("nadam", "radam")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_loop_and_foreach_are_torch_s_loop_bit_by_bit(name, given, dtype):
    theirs = drive(optimizer_info(name).load(), dtype=dtype, lr=0.01, foreach=False, **given)
    for foreach in (False, True):
        ours = drive(class_of(name), dtype=dtype, lr=0.01, foreach=foreach, **given)
        assert differences(ours, theirs) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_foreach_is_torch_s_foreach_where_torch_s_two_agree(name, given, dtype):
    theirs = [
        drive(optimizer_info(name).load(), dtype=dtype, lr=0.01, foreach=foreach, **given) for foreach in (False, True)
    ]
    agree = differences(*theirs) == []
    assert agree == (name not in FOREACH_DIFFERS)
    ours = drive(class_of(name), dtype=dtype, lr=0.01, foreach=True, **given)
    assert (differences(ours, theirs[1]) == []) == agree


@pytest.mark.parametrize("name", ALSO_TORCHS)
def test_complex_parameters_are_torch_s(name):
    # torch's loops add the decay to complex numbers, which rounds otherwise; its foreach, like ours, to real ones.
    foreach = name not in FOREACH_DIFFERS
    given = {"dtype": torch.complex64, "lr": 0.01, "weight_decay": 0.1}
    theirs = drive(optimizer_info(name).load(), foreach=foreach, **given)
    assert differences(drive(class_of(name), foreach=False, **given), theirs) == []
    assert differences(drive(class_of(name), foreach=True, **given), theirs) == []


def swapping(there, back):
    """Swaps in another optimizer before step 16, and the first again before step 33, by checkpoint."""
    make = {16: there, 33: back}

    def each(step, optimizer):
        if step not in make:
            return optimizer
        # Other hyperparameters than the checkpoint's: it has to bring its own.
        groups = [{"params": group["params"], "lr": 0.5, "weight_decay": 0.3} for group in optimizer.param_groups]
        other = make[step](groups)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        return other

    return each


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_a_checkpoint_crosses_over_mid_run_and_back(name, given):
    torchs = partial(optimizer_info(name).load(), lr=0.01, foreach=False, **given)
    ours = partial(class_of(name), lr=0.01, **given)
    unbroken = drive(torchs)
    assert differences(drive(torchs, each=swapping(ours, torchs)), unbroken) == []
    assert differences(drive(ours, each=swapping(torchs, ours)), unbroken) == []


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (optim.AMSGrad, partial(torch.optim.Adam, amsgrad=True)),
        (optim.NAdamW, partial(torch.optim.NAdam, decoupled_weight_decay=True)),
    ],
    ids=["AMSGrad", "NAdamW"],
)
def test_a_variant_is_torch_s_class_with_an_option(ours, torchs):
    ours, torchs = (partial(cls, lr=0.01, weight_decay=0.1, foreach=False) for cls in (ours, torchs))
    unbroken = drive(torchs)
    assert differences(drive(ours), unbroken) == []
    assert differences(drive(ours, each=swapping(torchs, ours)), unbroken) == []
    assert differences(drive(torchs, each=swapping(ours, torchs)), unbroken) == []


def trained(cls, num_steps=3, **given):
    params = new_params()
    optimizer = cls(params, lr=0.01, **given)
    for grads in new_grads(num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("name", ALSO_TORCHS)
def test_state_and_groups_are_those_that_torch_would_save(name):
    (_, ours), (_, theirs) = trained(class_of(name)), trained(optimizer_info(name).load(), foreach=False)
    saved, expected = ours.state_dict(), theirs.state_dict()
    assert set(saved["state"]) == set(expected["state"])
    for index, state in expected["state"].items():
        assert set(saved["state"][index]) == set(state)
        assert all(torch.equal(torch.as_tensor(saved["state"][index][key]), state[key]) for key in state)
    shared = set(expected["param_groups"][0]) - {"foreach"}
    assert {key: saved["param_groups"][0][key] for key in shared} == {
        key: expected["param_groups"][0][key] for key in shared
    }


@pytest.mark.parametrize(
    ("cls", "theirs", "missing"),
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
def test_another_optimizer_s_checkpoint_is_refused_and_nothing_changes(cls, theirs, missing):
    given = {"momentum": 0.9} if theirs is torch.optim.SGD else {}
    state_dict = trained(theirs, **given)[1].state_dict()
    _, optimizer = trained(cls)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ConfigError, match=rf"has (no )?({missing}|step), which {cls.__name__} (needs|does not know)"):
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


def test_a_checkpoint_of_other_groups_is_torch_s_error():
    _, optimizer = trained(optim.Adam)
    state_dict = trained(optim.Adam)[1].state_dict()
    state_dict["param_groups"] *= 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(state_dict)


def test_counters_of_a_fused_optimizer_come_back_to_the_cpu():
    _, theirs = trained(torch.optim.Adam, fused=True)
    _, ours = trained(optim.Adam)
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["fused"] is None
    assert {state["step"].device.type for state in ours.state.values()} == {"cpu"}


def test_the_factory_makes_each_of_the_two():
    model = torch.nn.Linear(3, 2)
    assert type(OptimizerFactory("adam", implementation="own")(model)) is optim.Adam
    assert type(OptimizerFactory("adam", implementation="torch")(model)) is torch.optim.Adam
