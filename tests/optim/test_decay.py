"""Weight decay: each mode is its formula, around any rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, WeightDecay, list_optimizers, optim, optimizer_info
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    MEMBERS,
    differences,
    native_class,
    new_params,
    set_grads,
    shapes_of,
    trajectory,
)

LR, PEAK, LAMBDA = 0.05, 0.2, 0.3


class Descent(optim.AdaptiveOptimizer):
    """Plain gradient descent, so that only the decay differs; in the declared form."""

    def __init__(self, params, lr=LR, **options):
        super().__init__(params, {"lr": lr}, **options)

    def coefficients(self, t, group):
        return {"size": group["lr"]}

    @staticmethod
    def update(p, g, *, size):
        return optim.Update(g, size)


class DescentByHook(optim.AdaptiveOptimizer):
    """The same, written with a hook."""

    def __init__(self, params, lr=LR, **options):
        super().__init__(params, {"lr": lr}, **options)

    def step_param(self, state, group, grad, param):
        param.add_(grad, alpha=-group["lr"])


def one_step(cls, param, grad, **options):
    """A parameter after one step with lr LR, in a group whose peak_lr is PEAK."""
    param = nn.Parameter(param.clone())
    optimizer = cls([param], lr=PEAK, weight_decay=LAMBDA, **options)
    optimizer.param_groups[0]["lr"] = LR
    param.grad = grad.clone()
    optimizer.step()
    return param.detach()


P = torch.tensor([1.0, -2.0, 0.5, -0.25, 0.0, 3.0, 0.0], dtype=torch.float64)
G = torch.tensor([0.5, 0.25, -1.0, 0.0, 2.0, 0.0, 0.0], dtype=torch.float64)
SHRUNK = {
    "decoupled": 1 - LR * LAMBDA,
    "absolute": 1 - LAMBDA,
    "relative": 1 - LAMBDA * LR / PEAK,
    "corrected": 1 - LAMBDA * LR**2 / PEAK,
}


@pytest.mark.parametrize("cls", [Descent, DescentByHook])
@pytest.mark.parametrize("mode", ["l2", "l1", *SHRUNK])
def test_each_mode_is_its_formula(cls, mode):
    expected = {
        "l2": P - LR * (G + LAMBDA * P),
        "l1": P - LR * (G + LAMBDA * P.sign()),
        **{name: P * factor - LR * G for name, factor in SHRUNK.items()},
    }
    # Not torch.equal: the formula rounds in another order than the step.
    torch.testing.assert_close(one_step(cls, P, G, weight_decay_mode=mode), expected[mode], rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("cls", [Descent, DescentByHook])
@pytest.mark.parametrize("mode", SHRUNK)
def test_cautious_decay_is_off_where_the_step_opposes_it(cls, mode):
    # The step is -G: it opposes the decay where G and P differ in sign. Where either is zero, the decay applies.
    agrees = torch.tensor([True, False, False, True, True, True, True])
    expected = torch.where(agrees, P * SHRUNK[mode], P) - LR * G
    given = one_step(cls, P, G, weight_decay_mode=mode, cautious_decay=True)
    torch.testing.assert_close(given, expected, rtol=1e-15, atol=1e-15)


def test_cautious_decay_compares_signs_where_their_product_underflows():
    param, grad = torch.tensor([1e-30, 1e-30]), torch.tensor([1e-30, -1e-30])
    after = one_step(Descent, param, grad, weight_decay_mode="absolute", cautious_decay=True)
    assert torch.equal(after, torch.tensor([1e-30 * 0.7, 1e-30]) - LR * grad)


def test_cautious_decay_compares_the_sign_of_a_step_that_underflows():
    param = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = Descent([param], lr=1e-20, weight_decay=0.5, weight_decay_mode="absolute", cautious_decay=True)
    param.grad = torch.tensor([1e-30, -1e-30])
    optimizer.step()
    assert torch.equal(param, torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize("mode", SHRUNK)
def test_a_coefficient_of_1_is_allowed(mode):
    param = nn.Parameter(torch.tensor([8.0]))
    optimizer = Descent([param], lr=0.5, weight_decay=1.0, weight_decay_mode=mode)
    param.grad = torch.zeros(1)
    optimizer.step()
    assert param.item() == {"decoupled": 4, "absolute": 0, "relative": 0, "corrected": 4}[mode]


def test_cautious_decay_compares_with_the_sum_of_several_updates():
    class InParts(Descent):
        @staticmethod
        def update(p, g, *, size):
            return optim.Update(g * 3, size), optim.Update(-g, size, over=torch.full_like(g, 0.2))

    # The sum is -2 G: its sign is not that of the first update.
    param, grad = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    after = one_step(InParts, param, grad, weight_decay_mode="absolute", cautious_decay=True)
    assert torch.allclose(after, torch.tensor([1.0, 0.7]) + 2 * LR * grad)


def test_cautious_decay_applies_where_there_is_no_step():
    given = {"weight_decay": 0.5, "weight_decay_mode": "absolute", "cautious_decay": True}
    param = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = optim.RAdam([param], lr=0.1, degenerate_to_sgd=False, **given)
    param.grad = torch.tensor([1.0, -1.0])
    optimizer.step()  # not yet rectified, so no step
    assert torch.equal(param, torch.tensor([0.5, 0.5]))


def test_absolute_decay_does_nothing_while_lr_is_0():
    param = nn.Parameter(torch.ones(2))
    optimizer = Descent([param], lr=0.1, weight_decay=0.5, weight_decay_mode="absolute")
    optimizer.param_groups[0]["lr"] = 0.0
    param.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(param, torch.ones(2))


def test_each_group_may_have_its_own_policy():
    params = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups = [
        {"params": params[:1], "weight_decay": WeightDecay(0.5, "absolute")},
        {"params": params[1:2], "weight_decay": 0.5, "weight_decay_mode": "relative"},
        {"params": params[2:]},
    ]
    optimizer = optim.Lion(groups, lr=0.25, weight_decay=WeightDecay(0.5, "l1"))
    modes = [(g["weight_decay"], g["weight_decay_mode"], g["cautious_decay"]) for g in optimizer.param_groups]
    assert modes == [(0.5, "absolute", False), (0.5, "relative", False), (0.5, "l1", False)]
    for param in params:
        param.grad = torch.full((2,), -0.25)
    optimizer.step()
    # The third group's decay flips the sign of the gradient: -0.25 + 0.5.
    assert [param[0].item() for param in params] == [0.75, 0.75, 0.75]


@pytest.mark.parametrize("mode", ["relative", "corrected"])
def test_peak_lr_is_the_lr_at_construction_or_when_the_group_joins(mode):
    first, late = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = Descent([first], lr=0.5, weight_decay=0.5, weight_decay_mode=mode)
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.add_param_group({"params": [late], "lr": 0.125})
    assert [group["peak_lr"] for group in optimizer.param_groups] == [0.5, 0.125]
    first.grad = late.grad = torch.zeros(1)
    optimizer.step()
    factor = {"relative": 0.5, "corrected": 0.125}[mode]
    assert (first.item(), late.item()) == (1 - 0.5 * factor, 1 - 0.5 * {"relative": 1, "corrected": 0.125}[mode])


@pytest.mark.parametrize("mode", ["relative", "corrected"])
def test_a_decay_relative_to_peak_lr_needs_one_above_0(mode):
    params = new_params()
    with pytest.raises(ConfigError) as caught:
        optim.Adam(params, lr=0.0, weight_decay=0.1, weight_decay_mode=mode)
    check_message(caught, "param_groups[0].peak_lr", f"weight_decay_mode: {mode}")
    optimizer = optim.Adam([{"params": params, "peak_lr": 0.1}], lr=0.0, weight_decay=0.1, weight_decay_mode=mode)
    assert optimizer.param_groups[0]["peak_lr"] == 0.1
    optim.Adam(new_params(), lr=0.0, weight_decay_mode=mode)  # no decay, no need


def test_lambs_default_decay_is_inside_its_ratio():
    # Only decay: without a gradient the ratio makes the step lr ‖p‖ long, whatever the coefficient.
    for coefficient in (0.01, 10.0):
        param = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        optimizer = optim.LAMB([param], lr=0.1, weight_decay=coefficient)
        param.grad = torch.zeros(2, dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(param.detach(), torch.tensor([2.7, 3.6], dtype=torch.float64))


def test_allowed_and_default_modes_of_each_member():
    common = ("l2", "l1", "decoupled", "absolute", "relative", "corrected")
    assert {name: optimizer_info(name).decay_modes for name in MEMBERS} == {
        name: (*common, "update") if name in ("lamb", "lars", "novograd") else common for name in MEMBERS
    }
    usual = {
        name: native_class(name)(new_params(shapes=shapes_of(name))).defaults["weight_decay_mode"] for name in MEMBERS
    }
    assert {name for name, mode in usual.items() if mode == "l2"} == {
        "sgd", "adam", "amsgrad", "adamax", "nadam", "radam", "adagrad", "adadelta", "rmsprop", "adabound", "amsbound",
        "yogi", "qhadam", "diffgrad", "padam", "adai", "adopt", "madgrad",
        "optimistic_adam", "omd", "ef_sgd", "extra_sgd", "extra_adam", "storm", "shampoo",
    }  # fmt: skip
    assert {name: mode for name, mode in usual.items() if mode not in ("l2", "decoupled")} == {
        "adaboundw": "absolute",
        "lamb": "update",
        "lars": "update",
        "novograd": "update",
    }
    assert set(MEMBERS) <= set(list_optimizers())


def test_a_coefficient_of_0_changes_nothing_in_any_mode():
    plain = trajectory(optim.Adam, lr=0.01)
    for mode in ("l2", "l1", *SHRUNK):
        assert differences(trajectory(optim.Adam, lr=0.01, weight_decay_mode=mode), plain) == []


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((-0.1, "l2"), "weight_decay"),
        (("0.1", "l2"), "weight_decay"),
        ((float("inf"), "l2"), "weight_decay"),
        ((0.1, "decopled"), "weight_decay_mode"),
        ((0.1, None), "weight_decay_mode"),
        ((0.1, "l2", True), "cautious_decay"),
        ((0.1, "update", True), "cautious_decay"),
    ],
    ids=str,
)
def test_a_wrong_policy_is_refused(arguments, key):
    with pytest.raises(ConfigError) as caught:
        WeightDecay(*arguments)
    check_message(caught, key)


@pytest.mark.parametrize("given", [{"weight_decay_mode": "l1"}, {"cautious_decay": True}], ids=str)
def test_a_policy_given_twice_is_refused(given):
    with pytest.raises(ConfigError, match=f"{next(iter(given))}: the WeightDecay already sets it"):
        optim.Adam(new_params(), weight_decay=WeightDecay(0.1, "decoupled"), **given)


def test_a_policy_is_an_immutable_value():
    assert WeightDecay(0.1, "l2") == WeightDecay(0.1, "l2") != WeightDecay(0.2, "l2")
    assert len({WeightDecay(0.1, "l2"), WeightDecay(0.1, "l2")}) == 1
    with pytest.raises(AttributeError):
        WeightDecay(0.1, "l2").mode = "l1"


def test_a_policy_changed_in_a_group_applies_from_the_next_step():
    params = new_params()
    optimizer = Descent(params, weight_decay=0.5, weight_decay_mode="absolute")
    set_grads(params, [torch.zeros_like(param) for param in params])
    before = [param.detach().clone() for param in params]
    optimizer.param_groups[0].update(WeightDecay(0.25, "absolute").keys())
    optimizer.step()
    assert all(torch.equal(param, was * 0.75) for param, was in zip(params, before, strict=True))
    optimizer.param_groups[0]["weight_decay_mode"] = "absolut"
    with pytest.raises(ConfigError, match="Did you mean 'absolute'"):
        optimizer.step()
