"""Bugs that other collections have or had, named for them; none of ours may come back to one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, optim, optimizer_info

from .driving import MEMBERS, class_of, differences, drive, new_grads, new_params, set_grads, through_a_file


def stepped(optimizer, params, num_steps=3):
    for grads in new_grads(num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()


# labml_nn


def test_labml_adabelief_passed_its_arguments_one_place_off():
    """Its defaults came out as amsgrad=True, optimized_update=False, degenerate_to_sgd={}."""
    params = new_params()
    optimizer = optim.AdaBelief(params)
    stepped(optimizer, params)
    assert {key: optimizer.defaults[key] for key in ("amsgrad", "rectify", "degenerate_to_sgd")} == {
        "amsgrad": False,
        "rectify": True,
        "degenerate_to_sgd": True,
    }
    assert "max_exp_avg_var" not in optimizer.state[params[0]]
    by_place = optim.AdaBelief(params, 0.25, (0.5, 0.75), 1e-3, 0.125, True, False, False).defaults
    expected = [0.25, (0.5, 0.75), 1e-3, 0.125, True, False, False]
    assert [by_place[key] for key in list(optimizer_info("adabelief").hyperparameters)[:7]] == expected


def test_labml_adam_s_eps_hat_is_the_root_of_what_it_says():
    """Its docstring has ε̂ = (1 - β2^t) ε; the two forms agree where ε̂ = √(1 - β2^t) ε."""
    eps, b2 = 1e-2, 0.99
    params = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    plain = optim.Adam(params[:1], eps=eps, betas=(0.9, b2))
    optimized = optim.Adam(params[1:], eps=eps, betas=(0.9, b2), optimized_update=True)
    for t in range(1, 6):
        for param in params:
            param.grad = torch.tensor([0.1, -0.02, 1.0], dtype=torch.float64) * t
        optimized.param_groups[0]["eps"] = math.sqrt(1 - b2**t) * eps
        plain.step()
        optimized.step()
        torch.testing.assert_close(params[0], params[1], rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in MEMBERS if "eps" in optimizer_info(name).hyperparameters])
def test_labml_adam_s_eps_of_1e_16_does_nothing(name):
    """AdaBelief's stands under the root, Sophia's and LaProp's are their authors'; all others are larger."""
    small = class_of(name)(new_params()).defaults["eps"] < 1e-10
    assert small == (name in ("adabelief", "laprop", "sophia_g"))


@pytest.mark.parametrize("wrong", [{"lr": -5}, {"betas": (3, 3)}], ids=str)
@pytest.mark.parametrize("cls", [optim.Adam, optim.RAdam, optim.AdaBelief, optim.AMSGrad])
def test_labml_checked_no_value_in_a_group(cls, wrong):
    with pytest.raises(ConfigError, match=rf"^param_groups\[0\]\.{next(iter(wrong))}: "):
        cls([{"params": new_params(), **wrong}])


def test_labml_shared_a_default_and_changed_the_caller_s():
    """One default WeightDecay() for all optimizers, and `defaults` updated in place."""
    defaults = {"lr": 0.25}

    class Mine(optim.AdaptiveOptimizer):
        def __init__(self, params):
            super().__init__(params, defaults)

    first, second = Mine(new_params()), Mine(new_params())
    first.defaults["weight_decay"] = 0.5
    first.param_groups[0]["weight_decay"] = 0.5
    assert second.defaults["weight_decay"] == second.param_groups[0]["weight_decay"] == 0.0
    assert defaults == {"lr": 0.25}


def test_labml_kept_the_policy_out_of_the_group():
    """Only the coefficient could differ from group to group."""
    params = new_params()
    groups = [
        {"params": params[:2], "weight_decay_mode": "decoupled"},
        {"params": params[2:], "weight_decay_mode": "absolute"},
    ]
    optimizer = optim.RAdam(groups, lr=0.0, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    before = [param.detach().clone() for param in params]
    set_grads(params, [torch.zeros_like(param) for param in params])
    optimizer.step()
    factors = [0.75, 0.75, 0.5, 0.5, 0.5]
    assert all(torch.equal(p, b * factor) for p, b, factor in zip(params, before, factors, strict=True))


@pytest.mark.parametrize("cls", [optim.RAdam, optim.AdaBelief])
def test_labml_radam_rests_while_it_cannot_rectify_but_decays(cls):
    """Which is what degenerate_to_sgd: false says, so it is kept, and said."""
    param = nn.Parameter(torch.ones(2))
    optimizer = cls([param], lr=0.5, weight_decay=0.5, weight_decay_mode="decoupled", degenerate_to_sgd=False)
    param.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(param, torch.full((2,), 0.75))
    assert optimizer.state[param]["exp_avg"].abs().min() > 0


# 201419/Optimizer-PyTorch


@pytest.mark.parametrize("cls", [optim.AdaBound, optim.AdaBoundW, optim.AMSBound])
def test_adabound_left_out_groups_that_joined_late(cls):
    """Its base_lrs were a list made in the constructor, zipped with the groups."""
    params = new_params()
    optimizer = cls(params[:2])
    optimizer.add_param_group({"params": params[2:]})
    before = [param.detach().clone() for param in params]
    set_grads(params, [torch.ones_like(param) for param in params])
    optimizer.step()
    assert not any(torch.equal(param, was) for param, was in zip(params, before, strict=True))


@pytest.mark.parametrize("cls", [optim.AdaBound, optim.AdaBoundW, optim.AMSBound])
def test_adabound_divided_by_0_where_a_warmup_starts_there(cls):
    params = new_params()
    optimizer = cls(params, lr=0.1)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 3)
    assert optimizer.param_groups[0]["lr"] == 0
    before = [param.detach().clone() for param in params]
    for grads in new_grads(num_steps=3):
        set_grads(params, grads)
        optimizer.step()
        if warmup.last_epoch == 0:
            assert all(torch.equal(param, was) for param, was in zip(params, before, strict=True))
        warmup.step()
    assert all(param.isfinite().all() for param in params)
    assert not torch.equal(params[0], before[0])


@pytest.mark.parametrize("cls", [optim.AdaBound, optim.AdaBoundW, optim.AMSBound])
def test_adabound_s_base_lrs_were_in_no_checkpoint(cls):
    """Nor was Lion's initial lr, in lion-pytorch: another constructor lr changed the resumed run."""
    given = {"final_lr": 0.02, "gamma": 0.5}  # so that the bounds hold most steps

    def from_disk(step, optimizer):
        if step != 16:
            return optimizer
        groups = [{"params": group["params"]} for group in optimizer.param_groups]
        other = cls(groups, lr=0.5, **given)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        other.defaults["lr"] = 0.01  # for the group that joins later
        return other

    assert differences(drive(cls, lr=0.01, each=from_disk, **given), drive(cls, lr=0.01, **given)) == []


def test_l2_decay_changed_the_gradient():
    """In 79 of pytorch_optimizer's classes it still does; for every member of ours see test_members.py."""
    params = new_params()
    optimizer = optim.AdaBound(params, weight_decay=0.5)
    set_grads(params, [torch.ones_like(param) for param in params])
    optimizer.step()
    assert all(torch.equal(param.grad, torch.ones_like(param)) for param in params)


def test_ef_sgd_kept_a_function_in_the_group():
    """So its checkpoints were not loadable with weights_only; and L2 decay wrote into the gradient."""
    params = new_params()
    optimizer = optim.EFSGD(params, comp="sign", weight_decay=0.5)
    set_grads(params, [torch.ones_like(param) for param in params])
    optimizer.step()
    assert all(torch.equal(param.grad, torch.ones_like(param)) for param in params)
    assert through_a_file(optimizer.state_dict())["param_groups"][0]["comp"] == "sign"


def test_ef_sgd_gave_the_parameter_s_norm_for_the_memory_s():
    """The memory is a buffer here, so telemetry takes its norm: what the sign left out, 0.5 of both gradients."""
    param = nn.Parameter(torch.ones(2))
    optimizer = optim.EFSGD([param], lr=1.0)
    param.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    assert torch.equal(optimizer.state[param]["error"], torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("name", [name for name in MEMBERS if "previous" in optimizer_info(name).buffers])
def test_omd_kept_an_alias_of_the_gradient(name, foreach):
    """With gradients that are set to zero in place, and filled again, it was gradient descent."""
    finals = []
    for in_place in (False, True):
        params = new_params()
        optimizer = class_of(name)(params, lr=0.01, foreach=foreach)
        for step in range(4):
            grads = [torch.full_like(param, 2.0**step) for param in params]
            if in_place and step:
                for param, grad in zip(params, grads, strict=True):
                    param.grad.zero_().add_(grad)
            else:
                set_grads(params, grads)
            optimizer.step()
        finals.append([param.detach().clone() for param in params])
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


def test_omd_takes_the_gradient_before_back():
    param = nn.Parameter(torch.zeros(1))
    optimizer = optim.OMD([param], lr=1.0)
    for slope in (1.0, 4.0):
        param.grad = torch.tensor([slope])
        optimizer.step()
    assert param.item() == -2 * 1 - 2 * 4 + 1


@pytest.mark.parametrize("name", MEMBERS)
def test_optimistic_adam_stopped_at_the_first_parameter_without_a_gradient(name):
    """And returned None, whatever the closure had returned."""
    without, param = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = class_of(name)([without, param], lr=0.1)

    def closure() -> str:
        param.grad = torch.ones(2)
        return "the loss"

    assert optimizer.step(closure) == "the loss"
    assert not torch.equal(param, torch.ones(2)) or name == "adopt"  # whose first gradient is only kept
    assert torch.equal(without, torch.ones(2)) and not optimizer.state[without]


@pytest.mark.parametrize("cls", [optim.ExtraSGD, optim.ExtraAdam, optim.STORM])
def test_extragradient_s_copies_were_in_no_checkpoint(cls):
    """Saved between the two gradients of a step, a run went on from the point ahead."""

    def from_disk(step, optimizer):
        if step not in (17, 30):  # an odd and an even number of gradients
            return optimizer
        other = cls([{"params": group["params"]} for group in optimizer.param_groups], lr=0.5)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        other.defaults["lr"] = 0.01
        return other

    assert differences(drive(cls, lr=0.01, each=from_disk), drive(cls, lr=0.01)) == []


@pytest.mark.parametrize("cls", [optim.ExtraSGD, optim.ExtraAdam, optim.STORM])
def test_extragradient_rebound_the_parameter_s_storage(cls):
    """`param.data =` leaves views of it behind: DDP's, FSDP's, a captured graph's."""
    param = nn.Parameter(torch.ones(3))
    view, optimizer = param.detach().view(-1), cls([param], lr=0.1)

    def closure() -> None:
        param.grad = param.detach().clone()

    optimizer.step(closure)
    assert torch.equal(view, param.detach()) and not torch.equal(view, torch.ones(3))


def test_storm_had_no_gradient_at_the_old_parameters():
    """It took the last batch's: with a = 0 and a gradient that is the same everywhere, d must stay the first one."""
    param = nn.Parameter(torch.zeros(1))
    optimizer = optim.STORM([param], lr=1.0, c=0.0)
    seen = []
    for noise in (1.0, -3.0, 7.0):

        def closure(noise=noise) -> None:
            seen.append(param.item())
            param.grad = param.detach() + noise

        optimizer.step(closure)
    here, old = seen[::2], seen[1::2]
    assert old == [here[0], *here[:-1]]  # on the same batch, at the parameters before
    # d_t = ∇f(x_t) with the first batch's noise: what the others brought is gone.
    assert optimizer.state[param]["estimate"].item() == pytest.approx(here[-1] + 1.0, abs=1e-6)


def test_storm_squared_a_norm_twice():
    param = nn.Parameter(torch.zeros(1))
    optimizer = optim.STORM([param], lr=1.0, w=1.0)

    def closure() -> None:
        param.grad = torch.tensor([3.0])

    for _ in range(2):
        optimizer.step(closure)
    assert optimizer.state[param]["sum"].item() == 2 * 3.0**2


# pytorch_optimizer


@pytest.mark.parametrize("given", [{}, {"rectify": False}, {"amsgrad": True}], ids=str)
def test_kozistr_adabelief_s_foreach_was_another_rule_than_its_loop(given):
    """4e-2 apart after five steps, in 3.9."""
    assert (
        differences(drive(optim.AdaBelief, foreach=True, **given), drive(optim.AdaBelief, foreach=False, **given)) == []
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_kozistr_counted_steps_for_the_whole_group(name):
    """So the first step of a parameter that joined after 50 was 5 to 10 times too small."""
    early, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = class_of(name)([early, late], lr=0.01)
    for _ in range(50):
        early.grad = torch.ones(3)
        optimizer.step()
    late.grad = torch.ones(3)
    optimizer.step()
    new = nn.Parameter(torch.ones(3))
    new.grad = torch.ones(3)
    class_of(name)([new], lr=0.01).step()
    assert torch.equal(late, new)
    assert torch.equal(new, torch.ones(3)) == (name in ("adopt", "storm"))  # whose first gradient is only kept


@pytest.mark.parametrize("name", MEMBERS)
def test_kozistr_took_misspelt_arguments(name):
    """`wieght_decay=` passes in silence in 109 of its 122 classes; in a param group, in torch's too."""
    for given in ({"wieght_decay": 0.1}, {"lrr": 0.1}):
        with pytest.raises(ConfigError, match="Did you mean '(weight_decay|lr)'"):
            class_of(name)(new_params(), **given)
        with pytest.raises(ConfigError, match="Did you mean '(weight_decay|lr)'"):
            class_of(name)([{"params": new_params(), **given}])


def test_kozistr_prodigy_took_the_first_group_s_lr_for_all():
    """lr is a factor on the d that all groups share."""
    d = {"d0": 0.5}
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = optim.Prodigy([{"params": params[:1]}, {"params": params[1:], "lr": 0.25}], **d)
    for param in params:
        param.grad = torch.ones(2)
    optimizer.step()
    steps = [1 - param.detach() for param in params]
    torch.testing.assert_close(steps[1], steps[0] * 0.25, rtol=1e-6, atol=0)


# timm


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("name", MEMBERS)
def test_timm_sgdw_decayed_once_for_each_dtype_in_the_group(name, foreach):
    given = {"lr": 0.0, "weight_decay": 0.5, "weight_decay_mode": "decoupled", "foreach": foreach}
    given |= {"d0": 1.0} if name == "prodigy" else {}  # a factor of its lr
    params = [nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    optimizer = class_of(name)([{"params": params, "peak_lr": 1.0}], **given)
    optimizer.param_groups[0]["lr"] = 1.0
    for param in params:
        param.grad = torch.zeros_like(param)
    for _ in range(optimizer.evaluations):
        optimizer.step()
    assert [param.tolist() for param in params] == [[0.5, 0.5]] * 3


# torch


def test_torch_78807_foreach_adam_never_updated_the_largest_moment():
    params = new_params()
    optimizer = optim.Adam(params, amsgrad=True, foreach=True)
    stepped(optimizer, params, 9)
    for param in params:
        state = optimizer.state[param]
        assert (state["max_exp_avg_sq"] >= state["exp_avg_sq"]).all()
        assert state["max_exp_avg_sq"].abs().max() > 0


def test_torch_nadam_turns_decoupled_decay_into_l2_where_a_checkpoint_lacks_the_flag():
    params = new_params()
    optimizer = optim.NAdamW(params, lr=0.01, weight_decay=0.1)
    state_dict = optimizer.state_dict()
    for group in state_dict["param_groups"]:
        del group["decoupled_weight_decay"], group["weight_decay_mode"]
    optimizer.load_state_dict(state_dict)
    assert optimizer.param_groups[0]["weight_decay_mode"] == "decoupled"


def test_torch_takes_the_execution_flags_of_the_checkpoint():
    params = new_params()
    saved = optim.Adam(params, foreach=True).state_dict()
    optimizer = optim.Adam(params, foreach=False)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["foreach"] is False


def test_torch_foreach_mul_rounds_its_factor_in_half_precision():
    """On the CPU and in place: in bfloat16 a momentum of 0.99 is 0.98828."""
    values = torch.linspace(1, 2, 50).bfloat16()
    exact = (values.double() * 0.99).bfloat16()
    rounded = values.clone()
    torch._foreach_mul_([rounded], 0.99)
    assert not torch.equal(rounded, exact), "torch is mended: take the way round it out of tensor_list.py"
    param = nn.Parameter(torch.zeros_like(values))
    for foreach in (False, True):
        optimizer = optim.RMSprop([param], momentum=0.99, foreach=foreach)
        for _ in range(2):
            param.grad = torch.zeros_like(param)
            optimizer.step()
            optimizer.state[param]["momentum_buffer"].copy_(values)
        optimizer.step()
        assert torch.equal(optimizer.state[param]["momentum_buffer"], exact)
