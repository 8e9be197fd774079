"""Bugs that other collections have or had, each with the library's name in the test's; ours must not have them.

Each docstring starts with the library. docs/reference_bugs.md is generated from them, so they are in one file:

    python -m tests.support.reference_bugs_table
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, optim, optimizer_info
from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.snapshot import Snapshot
from tests.support.cases import every
from tests.support.optimizer_runs import (
    KINDS,
    MATRIX_MEMBERS,
    MEMBERS,
    RESUMES_AT,
    differences,
    give_hessian,
    native_class,
    new_grads,
    new_params,
    resuming,
    set_grads,
    shapes_of,
    trajectory,
)
from tests.support.save_and_load import save_and_load

loop_and_foreach = pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
each_bounded = pytest.mark.parametrize("cls", [optim.AdaBound, optim.AdaBoundW, optim.AMSBound])
each_with_two_gradients = pytest.mark.parametrize("cls", [optim.ExtraSGD, optim.ExtraAdam, optim.STORM])


def take_steps(optimizer, params, num_steps=3):
    for grads in new_grads(num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()


# labml_nn


def test_labml_adabelief_shifted_its_arguments_by_one_position():
    """labml_nn: AdaBelief passed its arguments on shifted by one position, so its defaults were not those documented.

    They became amsgrad=True, optimized_update=False, degenerate_to_sgd={}.
    """
    params = new_params()
    optimizer = optim.AdaBelief(params)
    take_steps(optimizer, params)
    assert {key: optimizer.defaults[key] for key in ("amsgrad", "rectify", "degenerate_to_sgd")} == {
        "amsgrad": False,
        "rectify": True,
        "degenerate_to_sgd": True,
    }
    assert "max_exp_avg_var" not in optimizer.state[params[0]]
    by_position = optim.AdaBelief(params, 0.25, (0.5, 0.75), 1e-3, 0.125, True, False, False).defaults
    expected = [0.25, (0.5, 0.75), 1e-3, 0.125, True, False, False]
    assert [by_position[key] for key in list(optimizer_info("adabelief").hyperparameters)[:7]] == expected


def test_labml_adabelief_left_eps_out_of_the_state():
    """labml_nn: AdaBelief does not add eps to the variance in its state; the paper adds it at every step.

    Where gradients are as predicted, the paper's variance tends to eps / (1 - β2), a thousand times eps, and labml_nn's
    to 0.
    """
    param = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = optim.AdaBelief([param], eps=1e-3, betas=(0.5, 0.75))
    for _ in range(150):
        param.grad = torch.ones_like(param)
        optimizer.step()
    variance = optimizer.state[param]["exp_avg_var"]
    torch.testing.assert_close(variance, torch.full_like(variance, 1e-3 / 0.25), rtol=1e-12, atol=0)


def test_labml_adam_documented_the_wrong_eps_hat():
    """labml_nn: Adam's docstring gives ε̂ = (1 - β2^t) ε for `optimized_update`; the forms agree at √(1 - β2^t) ε."""
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


WITH_EPS = [name for name in MEMBERS if "eps" in optimizer_info(name).hyperparameters]


@pytest.mark.parametrize("name", every(WITH_EPS, fast=[name for name in KINDS if name in WITH_EPS]))
def test_labml_adam_moved_by_the_full_lr_on_noise(name):
    """labml_nn: Adam's default eps of 1e-16 is too small to have an effect, so a gradient of 1e-12 moves weights by lr.

    LaProp's and Sophia-G's are as small, as in their authors' code; AdaBelief's 1e-16 is under a root. NorMuon's and
    AdaMuon's steps have a norm of their own, whatever the gradient is.
    """

    def moved(cls, **given) -> float:
        param = nn.Parameter(torch.full((2, 1), 1e-3, dtype=torch.bfloat16))
        optimizer = cls([param], **given)
        for _ in range(8):
            param.grad = torch.tensor([[1e-12], [3e-13]], dtype=torch.bfloat16)
            optimizer.step()
        return float((param.detach() - 1e-3).abs().max()) / optimizer.defaults["lr"]

    assert moved(optim.Adam, eps=1e-16) > 7
    assert (moved(native_class(name)) > 1) == (name in ("laprop", "sophia_g", "normuon", "adamuon"))


def test_labml_shared_one_default_and_changed_the_callers_dict():
    """labml_nn: all optimizers share one default `WeightDecay()`, and the caller's `defaults` dict is modified."""
    defaults = {"lr": 0.25}

    class Mine(optim.AdaptiveOptimizer):
        def __init__(self, params):
            super().__init__(params, defaults)

    first, second = Mine(new_params()), Mine(new_params())
    first.defaults["weight_decay"] = 0.5
    first.param_groups[0]["weight_decay"] = 0.5
    assert second.defaults["weight_decay"] == second.param_groups[0]["weight_decay"] == 0.0
    assert defaults == {"lr": 0.25}


def test_labml_had_one_kind_of_decay_for_all_groups():
    """labml_nn: decay was decoupled or absolute for the whole optimizer; only its coefficient was set per group."""
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
def test_labml_radam_decays_where_it_takes_no_step(cls):
    """labml_nn: with `degenerated_to_sgd=False` RAdam takes no steps at first but still decays, which is undocumented.

    Here too a decay of the parameter itself applies in these steps; `RAdam`'s docstring documents it.
    """
    param = nn.Parameter(torch.ones(2))
    optimizer = cls([param], lr=0.5, weight_decay=0.5, weight_decay_mode="decoupled", degenerate_to_sgd=False)
    param.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(param, torch.full((2,), 0.75))
    assert optimizer.state[param]["exp_avg"].abs().min() > 0


def decay_under_schedule(name, num_steps, *, lr, **given):
    """The lrs of a schedule, and a parameter that AdamW only decays, by half the lr."""
    param = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = optim.AdamW([param], lr=lr, weight_decay=0.5)
    scheduler = SchedulerFactory(name, **given)(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        param.grad = torch.zeros_like(param)
        optimizer.step()
        scheduler.step()
    return lrs, param.detach()


@pytest.mark.parametrize("name", ["warmup_cosine", "noam"])
def test_labml_warmup_decayed_by_the_unwarmed_lr(name):
    """labml_nn: in AdamWarmup, its cosine variant and Noam, decoupled decay uses the group's lr, not the current one.

    With Noam's usual lr of 1 the weights shrank by the full coefficient at every step.
    """
    given = {"total_steps": 100} if name == "warmup_cosine" else {}
    lrs, param = decay_under_schedule(name, 6, lr=1.0, warmup_steps=4, **given)
    assert lrs[:4] == [0.25, 0.5, 0.75, 1.0]
    left = 1.0
    for lr in lrs:
        left *= 1 - lr * 0.5
    assert torch.equal(param, torch.full_like(param, left))


def test_labml_cosine_decay_climbed_back():
    """labml_nn: after `total_steps` the lr of AdamWarmupCosineDecay rises again, to its peak at twice as many steps."""
    lrs, _ = decay_under_schedule("warmup_cosine", 25, lr=0.5, warmup_steps=2, total_steps=10, final_scale=0.125)
    assert lrs == [lrs[0], *sorted(lrs[1:], reverse=True)]
    assert set(lrs[10:]) == {0.0625}


def test_labml_noam_divided_by_zero_by_default():
    """labml_nn: Noam's default, no warm-up, raises a ZeroDivisionError at the first step."""
    for given in ({}, {"warmup_steps": 0}):
        with pytest.raises(ConfigError, match=r"^warmup_steps: noam needs a warm-up\. Type for example"):
            SchedulerFactory("noam", **given)


def test_labml_noam_did_not_save_d_model():
    """labml_nn: Noam's `d_model`, a factor of the lr, is not in the checkpoint, so another value changes a resumed run.

    Here the peak is the group's own lr, which is in the checkpoint, and another warm-up is refused.
    """

    def made(lr, warmup_steps):
        optimizer = optim.Adam(new_params(), lr=lr)
        return optimizer, SchedulerFactory("noam", warmup_steps=warmup_steps)(optimizer)

    pair, other, with_other_warmup = made(0.25, 4), made(0.5, 4), made(0.25, 9)
    for run in (pair, other):
        run[0].step()
        run[1].step()
    with pytest.raises(ConfigError, match="warmup_steps: 4 -> 9"):
        with_other_warmup[1].load_state_dict(save_and_load(pair[1].state_dict()))
    for mine, theirs in zip(other, pair, strict=True):
        mine.load_state_dict(save_and_load(theirs.state_dict()))
    for _ in range(6):
        for optimizer, scheduler in (pair, other):
            optimizer.step()
            scheduler.step()
        assert other[1].get_last_lr() == pair[1].get_last_lr()
        assert other[0].param_groups[0]["lr"] == pair[0].param_groups[0]["lr"]


def test_labml_sophia_took_the_training_gradient_for_the_hessian():
    """labml_nn: Sophia's `update_hessian` reads only `p.grad`, which holds the training gradient.

    Unless the caller replaces that first, the estimate uses the true labels, not sampled ones. Here the gradients can
    be passed, and `SophiaHessian` does so.
    """
    param = nn.Parameter(torch.ones(2))
    optimizer = optim.SophiaG([param], betas=(0.5, 0.75))
    param.grad = training_grad = torch.tensor([100.0, 200.0])
    optimizer.update_hessian(4, {param: torch.tensor([1.0, 2.0])})
    assert torch.equal(optimizer.state[param]["hessian"], torch.tensor([1.0, 4.0]))
    assert param.grad is training_grad
    assert torch.equal(training_grad, torch.tensor([100.0, 200.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_labml_adam_fp16_lost_its_masters_on_load(dtype):
    """labml_nn: AdamFP16's float32 copy of the weights and its moments are loaded from a checkpoint in 16 bits.

    `load_state_dict` casts them to the parameter's dtype, so a resume loses their extra precision.
    """
    runs = []
    for _ in range(2):
        params = new_params(dtype)
        runs.append((params, optim.Adam(params, lr=1e-3, master_weights=True)))
    (params, optimizer), (params_too, optimizer_too) = runs
    script = new_grads(dtype, num_steps=8)
    for grads in script[:3]:
        set_grads(params, grads)
        optimizer.step()
    optimizer_too.load_state_dict(save_and_load(optimizer.state_dict()))
    for state in optimizer_too.state.values():
        assert {key: value.dtype for key, value in state.items()} == dict.fromkeys(
            ("master", "step", "exp_avg", "exp_avg_sq"), torch.float32
        )
    for a, b in zip(params, params_too, strict=True):
        b.data.copy_(a)
    for some, one in runs:
        for grads in script[3:]:
            set_grads(some, grads)
            one.step()
    for a, b in zip(params, params_too, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimizer.state[a]["master"], optimizer_too.state[b]["master"])
    assert any(not torch.equal(optimizer.state[p]["master"], p.float()) for p in params)


def test_labml_adam_fp16_rebound_the_parameters_storage():
    """labml_nn: AdamFP16 assigns `param.data` at each step, so views of it become stale: in DDP, FSDP, CUDA graphs."""
    param = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    view, optimizer = param.detach().view(-1), optim.Adam([param], lr=0.5, master_weights=True)
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert torch.equal(view, param.detach())
    assert torch.equal(view, torch.full_like(view, 0.5))


def test_labml_adamw_was_adam_with_a_warmup():
    """labml_nn: in its configs `AdamW` means AdamWarmup with 2000 steps, not AdamW."""
    assert optimizer_info("adamw").load() is torch.optim.AdamW
    assert differences(trajectory(optim.AdamW, lr=0.01), trajectory(torch.optim.AdamW, lr=0.01, foreach=False)) == []
    with pytest.raises(ConfigError, match=r"^warmup: adamw has no hyperparameter"):
        OptimizerFactory("adamw", warmup=2000)


def test_labml_configs_dropped_optimized_adam_update():
    """labml_nn: its configs accept `optimized_adam_update` for RAdam and AdaBelief, but never pass it on."""
    first, second = (trajectory(optim.RAdam, lr=0.01, eps=0.1, optimized_update=value) for value in (False, True))
    assert differences(first, second) != []
    built = OptimizerFactory("radam", optimized_update=False)(nn.Linear(2, 2))
    assert built.param_groups[0]["optimized_update"] is False
    with pytest.raises(ConfigError, match="^optimized_update: adabelief has no hyperparameter"):
        OptimizerFactory("adabelief", optimized_update=True)


# 201419/Optimizer-PyTorch


@pytest.mark.parametrize("given", [{"name": "radam"}, {"name": "adam", "lookahead": {"k": 1, "alpha": 0.25}}], ids=str)
def test_201419_listed_radam_and_lookahead_without_code(given):
    """201419/Optimizer-PyTorch: its README lists RAdam and Lookahead, for which there is no code."""
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = OptimizerFactory(**given, lr=0.5)(layer)
    layer.weight.grad = torch.ones(2, 2)
    optimizer.step()
    moved = 0.125 if "lookahead" in given else 0.5
    torch.testing.assert_close(layer.weight.detach(), before - moved)


@pytest.mark.parametrize("name", ["sgd", "adam", "storm"])
def test_201419_could_not_import_adam_sgd_and_storm(name):
    """201419/Optimizer-PyTorch: SGD, Adam and STORM cannot be imported: they import a file that is missing."""
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = OptimizerFactory(name)(layer)

    def closure():
        layer.weight.grad = torch.ones(2, 2)

    optimizer.step(closure)
    assert not torch.equal(layer.weight, before)


@each_bounded
def test_201419_adabound_ignored_groups_that_joined_late(cls):
    """201419/Optimizer-PyTorch: AdaBound never steps a group that joins after the constructor.

    Its `base_lrs` are a list built in the constructor and zipped with the groups.
    """
    params = new_params()
    optimizer = cls(params[:2])
    optimizer.add_param_group({"params": params[2:]})
    before = [param.detach().clone() for param in params]
    set_grads(params, [torch.ones_like(param) for param in params])
    optimizer.step()
    assert not any(torch.equal(param, was) for param, was in zip(params, before, strict=True))


@each_bounded
def test_201419_adabound_divided_by_0_with_a_warmup_from_0(cls):
    """201419/Optimizer-PyTorch: AdaBound divides by the initial lr, which is 0 where a warm-up starts at 0."""
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


@each_bounded
def test_201419_adabound_did_not_save_its_base_lrs(cls):
    """201419/Optimizer-PyTorch: AdaBound's `base_lrs` are not in the checkpoint, so another lr changes a resume."""
    given = {"final_lr": 0.02, "gamma": 0.5}  # so that the bounds clip most steps
    resumed = trajectory(cls, lr=0.01, before_step=resuming(cls, **given), **given)
    assert differences(resumed, trajectory(cls, lr=0.01, **given)) == []


def test_201419_adaboundw_decayed_while_the_lr_was_0():
    """201419/Optimizer-PyTorch: AdaBoundW's decay does not depend on the lr: it applies in full while that is 0."""
    param = nn.Parameter(torch.ones(2))
    optimizer = optim.AdaBoundW([param], lr=0.1, weight_decay=0.5)
    for lr, expected in ((0.0, 1.0), (0.05, 0.5), (0.1, 0.25)):
        optimizer.param_groups[0]["lr"] = lr
        param.grad = torch.zeros(2)
        optimizer.step()
        assert torch.equal(param, torch.full((2,), expected))


@loop_and_foreach
@pytest.mark.parametrize("name", ["ef_sgd", "extra_sgd", "storm"])
def test_201419_and_kozistr_changed_the_gradient_by_l2_decay(name, foreach):
    """201419/Optimizer-PyTorch, pytorch_optimizer: L2 decay is added to `p.grad` itself.

    So what is logged, clipped or used in another step is no longer the gradient: in EF-SGD, ExtraSGD and STORM, and in
    79 of pytorch_optimizer's classes.
    """
    params = new_params()
    optimizer = native_class(name)(params, weight_decay=0.5, weight_decay_mode="l2", foreach=foreach)
    for _ in range(2):
        grads = [torch.ones_like(param) for param in params]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        assert all(torch.equal(grad, torch.ones_like(grad)) for grad in grads)
        assert all(param.grad is grad for param, grad in zip(params, grads, strict=True))


def test_201419_ef_sgd_stored_a_function_in_the_group():
    """201419/Optimizer-PyTorch: EF-SGD stores a function in the group: its checkpoints need weights_only=False."""
    params = new_params()
    optimizer = optim.EFSGD(params, comp="sign")
    take_steps(optimizer, params)
    assert save_and_load(optimizer.state_dict())["param_groups"][0]["comp"] == "sign"


def test_201419_ef_sgd_returned_the_norm_of_the_parameter_for_that_of_the_memory():
    """201419/Optimizer-PyTorch: EF-SGD's `memory_norm()` is the norm of the parameters, not of the compression error.

    Here that error is a buffer, and `OptimizerMonitor` logs its norm.
    """
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 100.0)
    optimizer = optim.EFSGD(layer.parameters(), lr=1.0)
    layer.weight.grad = torch.tensor([[1.0, 2.0]])
    optimizer.step()
    snapshot = Snapshot(Inventory(optimizer, Plan.from_optimizer(optimizer, layer)), 0)
    snapshot.after_step()
    values = {signal: value for (signal, group), value in snapshot.read().values.items() if group == "default"}
    assert values["norm/error"] == pytest.approx(math.sqrt(0.5))  # of [-0.5, 0.5]
    assert values["norm/param"] == pytest.approx(math.sqrt(2 * 98.5**2))


@each_with_two_gradients
def test_201419_extragradient_did_not_save_its_copies(cls):
    """201419/Optimizer-PyTorch: the point that an extragradient step starts from is not in the checkpoint.

    A run that is saved between the two gradients of a step resumes from the extrapolated point.
    """
    resumed = trajectory(cls, lr=0.01, before_step=resuming(cls))  # after an odd and an even number of gradients
    assert differences(resumed, trajectory(cls, lr=0.01)) == []


@each_with_two_gradients
def test_201419_extragradient_rebound_the_parameters_storage(cls):
    """201419/Optimizer-PyTorch: extragradient assigns `param.data`, so views of it become stale: DDP's, FSDP's."""
    param = nn.Parameter(torch.ones(3))
    view, optimizer = param.detach().view(-1), cls([param], lr=0.1)

    def closure() -> None:
        param.grad = param.detach().clone()

    optimizer.step(closure)
    assert torch.equal(view, param.detach())
    assert not torch.equal(view, torch.ones(3))


@loop_and_foreach
@pytest.mark.parametrize("name", [name for name in MEMBERS if "previous" in optimizer_info(name).buffers])
def test_201419_omd_stored_the_gradient_without_copying_it(name, foreach):
    """201419/Optimizer-PyTorch: OMD stores the gradient itself as the previous one, not a copy.

    If gradients are zeroed in place and filled again, both are the same tensor, and the rule becomes gradient descent.
    """
    finals = []
    for in_place in (False, True):
        params = new_params()
        optimizer = native_class(name)(params, lr=0.01, foreach=foreach)
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


@pytest.mark.parametrize("name", every(MEMBERS, fast=KINDS))
def test_201419_optimistic_adam_stopped_at_the_first_parameter_without_a_gradient(name):
    """201419/Optimizer-PyTorch: OptimisticAdam's step ends at the first parameter without a gradient.

    The parameters after it are not updated, and the closure's loss is not returned.
    """
    without, param = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(2, 1))
    optimizer = native_class(name)([without, param], lr=0.1)

    def closure() -> str:
        param.grad = torch.ones(2, 1)
        return "the loss"

    assert optimizer.step(closure) == "the loss"
    assert not torch.equal(param, torch.ones(2, 1)) or name == "adopt"  # its first gradient only initializes the state
    assert torch.equal(without, torch.ones(2, 1)) and not optimizer.state[without]


def test_201419_optimistic_adam_corrected_bias_without_the_power_t():
    """201419/Optimizer-PyTorch: OptimisticAdam for TensorFlow corrects its moments by 1 - β, not by 1 - β^t.

    So its steps grow while the gradient stays the same; they must be 2 lr once, and then lr.
    """
    param = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = optim.OptimisticAdam([param], lr=0.25, eps=0.0)
    for t in range(1, 9):
        param.grad = torch.tensor([1.0, -3.0], dtype=torch.float64)
        optimizer.step()
        expected = torch.tensor([-0.25, 0.25], dtype=torch.float64) * (t + 1)
        torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=0)  # roundings


def test_201419_storm_never_evaluated_the_batch_at_the_old_parameters():
    """201419/Optimizer-PyTorch: STORM uses the last batch's gradient in place of this batch's at the old parameters.

    So it removes no noise. With a = 0, and noise that depends only on the batch, only the first batch's must remain.
    """
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
    # d_t = ∇f(x_t) with the first batch's noise: that of the others cancels.
    assert optimizer.state[param]["estimate"].item() == pytest.approx(here[-1] + 1.0, abs=1e-6)


def test_201419_storm_squared_a_norm_twice():
    """201419/Optimizer-PyTorch: STORM squares its sum of squares again, so the lr falls far too fast."""
    param = nn.Parameter(torch.zeros(1))
    optimizer = optim.STORM([param], lr=1.0, w=1.0)

    def closure() -> None:
        param.grad = torch.tensor([3.0])

    for _ in range(2):
        before = param.item()
        optimizer.step(closure)
    # With the same gradient everywhere, the estimate is that gradient, and the step η times it.
    assert before - param.item() == pytest.approx(3.0 / (1.0 + 2 * 3.0**2) ** (1 / 3), rel=1e-6)


# pytorch_optimizer


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (optim.AdaBelief, {}),
        (optim.AdaBelief, {"rectify": False}),
        (optim.AdaBelief, {"amsgrad": True}),
        (optim.StableAdamW, {}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_kozistr_foreach_was_not_the_rule_of_the_loop(cls, given):
    """pytorch_optimizer: in 3.9, foreach and loop of AdaBelief, StableAdamW and Adafactor compute different rules.

    They differ by 4e-2, 3e-2 and 2e-3 after five steps.
    """
    assert differences(trajectory(cls, foreach=True, **given), trajectory(cls, foreach=False, **given)) == []


@pytest.mark.parametrize("name", every(MEMBERS, fast=KINDS))
def test_kozistr_counted_steps_for_the_whole_group(name):
    """pytorch_optimizer: steps are counted per group, so the bias correction of a parameter that joins late is wrong.

    After 50 steps its first step is 5 (Adan) to 10 (StableAdamW) times too small.
    """
    early, late = nn.Parameter(torch.ones(3, 1)), nn.Parameter(torch.ones(3, 1))
    optimizer = native_class(name)([early, late], lr=0.01)
    give_hessian(optimizer, [early])
    for _ in range(50):
        early.grad = torch.ones(3, 1)
        optimizer.step()
    late.grad = torch.ones(3, 1)
    optimizer.step()
    new = nn.Parameter(torch.ones(3, 1))
    new.grad = torch.ones(3, 1)
    native_class(name)([new], lr=0.01).step()
    assert torch.equal(late, new)
    assert torch.equal(new, torch.ones(3, 1)) == (
        name in ("adopt", "storm")
    )  # their first gradient does not move a parameter


def test_kozistr_accepted_misspelt_arguments():
    """pytorch_optimizer: `wieght_decay=` is silently accepted in 109 of its 122 classes."""
    for name in MEMBERS:
        for given in ({"wieght_decay": 0.1}, {"lrr": 0.1}):
            with pytest.raises(ConfigError, match="Did you mean '(weight_decay|lr)'"):
                native_class(name)(new_params(shapes=shapes_of(name)), **given)


def test_kozistr_prodigy_used_the_first_groups_lr_for_all():
    """pytorch_optimizer: Prodigy uses the first group's lr for every group; a group's lr should scale the shared d."""
    d = {"d0": 0.5}
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = optim.Prodigy([{"params": params[:1]}, {"params": params[1:], "lr": 0.25}], **d)
    for param in params:
        param.grad = torch.ones(2)
    optimizer.step()
    steps = [1 - param.detach() for param in params]
    torch.testing.assert_close(steps[1], steps[0] * 0.25, rtol=1e-6, atol=0)


# timm


@loop_and_foreach
@pytest.mark.parametrize("name", every(MEMBERS, fast=KINDS))
def test_timm_sgdw_decayed_once_for_each_dtype_in_the_group(name, foreach):
    """timm: SGDW's foreach decays each parameter once for every device and dtype in its group."""
    given = {"lr": 0.0, "weight_decay": 0.5, "weight_decay_mode": "decoupled", "foreach": foreach}
    given |= {"d0": 1.0} if name == "prodigy" else {}  # d is a factor of its lr
    shape = (2, 1) if name in MATRIX_MEMBERS else (2,)
    params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    optimizer = native_class(name)([{"params": params, "peak_lr": 1.0}], **given)
    optimizer.param_groups[0]["lr"] = 1.0
    for param in params:
        param.grad = torch.zeros_like(param)
    for _ in range(optimizer.evaluations):
        optimizer.step()
    assert [param.flatten().tolist() for param in params] == [[0.5, 0.5]] * 3


# lion-pytorch


def test_lion_pytorch_did_not_save_the_initial_lr():
    """lion-pytorch: the lr that `decoupled_weight_decay` divides by is not in the checkpoint: another changes a resume.

    Here that decay is `weight_decay_mode: relative`, and that lr is the group's `peak_lr`.
    """
    given = {"weight_decay": 0.1, "weight_decay_mode": "relative"}
    resumed = trajectory(optim.Lion, lr=0.01, before_step=resuming(optim.Lion, **given), **given)
    assert differences(resumed, trajectory(optim.Lion, lr=0.01, **given)) == []


# torch


def test_torch_labml_and_kozistr_checked_no_value_in_a_group():
    """torch, labml_nn, pytorch_optimizer: only the constructor's arguments are checked; a group may have any value."""
    for name in MEMBERS:
        for key, value in {"lr": -5.0, "weight_decay": -0.1, "betas": (3.0, 3.0)}.items():
            if key not in optimizer_info(name).hyperparameters:
                continue
            params, wrong = new_params(shapes=shapes_of(name)), {key: value}
            with pytest.raises(ConfigError, match=rf"^param_groups\[0\]\.{key}: "):
                native_class(name)([{"params": params, **wrong}])
            optimizer = native_class(name)(params[:2])
            with pytest.raises(ConfigError, match=rf"^param_groups\[1\]\.{key}: "):
                optimizer.add_param_group({"params": params[2:], **wrong})
            assert len(optimizer.param_groups) == 1


def test_torch_labml_and_kozistr_accepted_misspelt_keys_in_a_group():
    """torch, labml_nn, pytorch_optimizer: a misspelt key of a param group is silently stored, and has no effect."""
    for name in MEMBERS:
        for given in ({"wieght_decay": 0.1}, {"lrr": 0.1}):
            with pytest.raises(ConfigError, match=r"^param_groups\[0\]\..*Did you mean '(weight_decay|lr)'"):
                native_class(name)([{"params": new_params(shapes=shapes_of(name)), **given}])


def test_torch_cast_the_state_to_the_dtype_of_the_parameter_on_load():
    """torch, pytorch_optimizer: a load casts float32 state to the dtype of 16-bit parameters.

    pytorch#43706, open since 2020: everything but `step` is cast.
    """

    class Summed(optim.AdaptiveOptimizer):
        def __init__(self, params, lr=0.01, **options):
            super().__init__(params, {"lr": lr}, **options)

        def buffers(self, group):
            return {"total": torch.float32}

        def coefficients(self, t, group):
            return {"size": group["lr"]}

        @staticmethod
        def update(p, g, total, *, size):
            return optim.Update(total.add_(g, alpha=1 / 3), size)

    loaded = []

    def resume_and_record(step, optimizer):
        optimizer = resuming(Summed)(step, optimizer)
        if step in RESUMES_AT:
            loaded.extend(state["total"] for state in optimizer.state.values())
        return optimizer

    given = {"dtype": torch.bfloat16, "lr": 0.01}
    assert differences(trajectory(Summed, before_step=resume_and_record, **given), trajectory(Summed, **given)) == []
    assert {total.dtype for total in loaded} == {torch.float32}
    assert any(not torch.equal(total, total.bfloat16().float()) for total in loaded)


def test_torch_foreach_adam_never_updated_the_largest_moment():
    """torch: the foreach form of Adam with amsgrad never updated `max_exp_avg_sq` (pytorch#78807, fixed)."""
    params = new_params()
    optimizer = optim.Adam(params, amsgrad=True, foreach=True)
    take_steps(optimizer, params, 9)
    for param in params:
        state = optimizer.state[param]
        assert (state["max_exp_avg_sq"] >= state["exp_avg_sq"]).all()
        assert state["max_exp_avg_sq"].abs().max() > 0


def test_torch_nadam_turns_decoupled_decay_into_l2_if_a_checkpoint_lacks_the_flag():
    """torch: NAdam's decoupled decay becomes L2 if a checkpoint, of an older version, lacks the flag."""
    params = new_params()
    optimizer = optim.NAdamW(params, lr=0.01, weight_decay=0.1)
    state_dict = optimizer.state_dict()
    for group in state_dict["param_groups"]:
        del group["decoupled_weight_decay"], group["weight_decay_mode"]
    optimizer.load_state_dict(state_dict)
    assert optimizer.param_groups[0]["weight_decay_mode"] == "decoupled"


def test_torch_uses_the_execution_flags_of_the_checkpoint():
    """torch: a load takes `foreach` and `fused` from the checkpoint, whatever this run was configured with."""
    params = new_params()
    saved = optim.Adam(params, foreach=True).state_dict()
    optimizer = optim.Adam(params, foreach=False)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["foreach"] is False


def test_torch_foreach_mul_rounds_its_factor_in_half_precision():
    """torch: on the CPU `_foreach_mul_` of 16-bit tensors rounds its factor: in bfloat16 0.99 becomes 0.98828."""
    values = torch.linspace(1, 2, 50).bfloat16()
    exact = (values.double() * 0.99).bfloat16()
    rounded = values.clone()
    torch._foreach_mul_([rounded], 0.99)
    assert not torch.equal(rounded, exact), "torch has fixed it: remove the workaround from tensor_list.py"
    param = nn.Parameter(torch.zeros_like(values))
    for foreach in (False, True):
        optimizer = optim.RMSprop([param], momentum=0.99, foreach=foreach)
        for _ in range(2):
            param.grad = torch.zeros_like(param)
            optimizer.step()
            optimizer.state[param]["momentum_buffer"].copy_(values)
        optimizer.step()
        assert torch.equal(optimizer.state[param]["momentum_buffer"], exact)
