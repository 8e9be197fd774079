"""What `AdaptiveOptimizer` does around any rule: groups, state, step counts, checks before a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    MEMBERS,
    native_class,
    new_grads,
    new_params,
    set_grads,
)


def test_a_group_that_joins_after_a_load_has_the_keys_of_the_others():
    params = new_params()
    optimizer = optim.Lion(params[:2])
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": params[2:]})
    first, late = optimizer.param_groups
    assert first.keys() == late.keys()
    # ZeroRedundancyOptimizer passes a flag of torch's, with the value that changes nothing.
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "differentiable": False})
    assert optimizer.param_groups[-1].keys() == first.keys()
    with pytest.raises(ConfigError, match="differentiable"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "differentiable": True})


def test_buffers_have_the_memory_layout_of_their_parameter():
    param = nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    param.grad = torch.ones_like(param)
    optimizer = optim.Adam([param])
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].stride() == param.stride()


def test_parameters_of_several_dtypes_share_one_optimizer():
    given = [torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.bfloat16), torch.ones(2) * 1j]
    joint = [nn.Parameter(value.clone()) for value in given]
    for foreach in (False, True):
        separate = [nn.Parameter(param.detach().clone()) for param in joint]
        optimizers = [optim.AdamW(joint, foreach=foreach), *(optim.AdamW([param]) for param in separate)]
        for param in (*joint, *separate):
            param.grad = torch.full_like(param, 0.5)
        for optimizer in optimizers:
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(joint, separate, strict=True))


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"schedule_free": {}}], ids=str)
def test_a_module_converted_during_the_training_is_refused_with_both_dtypes(options):
    layer = nn.Linear(3, 2)
    optimizer = OptimizerFactory("adamw", implementation="own", **options)(layer)
    for dtype in (torch.float32, torch.float64):
        layer.to(dtype)
        optimizer.zero_grad()
        layer(torch.ones(1, 3, dtype=dtype)).sum().backward()
        if dtype == torch.float32:
            optimizer.step()
    with pytest.raises(ConfigError, match=r"^param group 'default': a parameter is float64, and its \w+ .* float32: "):
        optimizer.step()


def test_each_step_count_is_its_own_cpu_tensor():
    # Lightning moves every tensor of the state to the device of its parameter, except the one called step.
    params = new_params()
    optimizer = optim.Lion(params)
    set_grads(params, new_grads()[1])
    optimizer.step()
    steps = [state["step"] for state in optimizer.state.values()]
    assert {(step.device.type, step.dtype, step.ndim) for step in steps} == {("cpu", torch.float32, 0)}
    assert len({id(step) for step in steps}) == len(steps)


@pytest.mark.parametrize("name", ["AdamW", "Lion"])
def test_a_step_uses_the_lr_and_decay_that_the_group_has_by_then(name):
    cls = getattr(optim, name)
    params, expected = new_params(), new_params()
    scheduled, built = cls(params, lr=0.1, weight_decay=0.5), cls(expected, lr=0.025, weight_decay=0.125)
    scheduled.param_groups[0].update(lr=0.025, weight_decay=0.125)
    for optimizer, own in ((scheduled, params), (built, expected)):
        set_grads(own, new_grads()[1])
        optimizer.step()
    assert all(map(torch.equal, params, expected))


def test_loading_copies_the_step_counts():
    params = new_params()
    optimizer, other = optim.Lion(params), optim.Lion(params)
    set_grads(params, new_grads()[1])
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert (optimizer.state[params[0]]["step"].item(), other.state[params[0]]["step"].item()) == (2, 1)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_steps_are_counted_exactly_with_any_default_dtype(default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        param = nn.Parameter(torch.ones(1, dtype=torch.float32))
        optimizer = optim.NAdam([param])
        param.grad = torch.ones_like(param)
        optimizer.step()
        optimizer.state[param]["step"].fill_(4096.0)
        optimizer.step()
        other = optim.NAdam([param])
        other.load_state_dict(optimizer.state_dict())
        expected = torch.float64 if default == torch.float64 else torch.float32
        for each in (optimizer, other):
            step = each.state[param]["step"]
            assert (step.item(), step.dtype) == (4097.0, expected)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5)], ids=["numpy", "tensor"])
@pytest.mark.parametrize("name", ["lion", "lamb"])
def test_a_schedule_may_set_weight_decay_to_a_tensor_or_numpy_number(name, number):
    params, others = new_params(), new_params()
    optimizer, expected = (native_class(name)(some, weight_decay=0.25) for some in (params, others))
    optimizer.param_groups[0]["weight_decay"], expected.param_groups[0]["weight_decay"] = number, 0.5
    for some, each in ((params, optimizer), (others, expected)):
        set_grads(some, new_grads()[1])
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@pytest.mark.parametrize(("mode", "lr"), [("relative", 0.3), ("corrected", 2.0)])
def test_an_lr_too_far_above_the_peak_is_refused_before_anything_changes(mode, lr):
    params = new_params()
    optimizer = optim.Lion(params, lr=0.1, weight_decay=0.5, weight_decay_mode=mode)
    optimizer.param_groups[0]["lr"] = lr
    before = [param.detach().clone() for param in params]
    set_grads(params, new_grads()[1])
    with pytest.raises(ConfigError) as caught:
        optimizer.step()
    check_message(caught, "weight_decay_mode", f"lr {lr:g} over peak_lr 0.1", "schedule's peak")
    assert all(torch.equal(param, was) for param, was in zip(params, before, strict=True))
    assert not optimizer.state


def test_turning_on_a_decay_that_needs_a_peak_lr_is_refused_where_it_is_0():
    params = new_params()
    optimizer = optim.Lion(params, lr=0.0, weight_decay_mode="relative")
    optimizer.param_groups[0].update(lr=0.1, weight_decay=0.5)
    set_grads(params, new_grads()[1])
    with pytest.raises(ConfigError, match="peak_lr 0"):
        optimizer.step()


def test_an_empty_parameter_is_not_stepped():
    for name in MEMBERS:
        param, empty = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(0, 2))
        optimizer = native_class(name)([param, empty], lr=0.1)
        for p in (param, empty):
            p.grad = torch.ones_like(p)
        optimizer.step()
        tensors = [v for v in optimizer.state[empty].values() if isinstance(v, torch.Tensor)]
        assert all(v.isfinite().all() for v in tensors), name
