"""torch's fused kernels under any memory layout: the numbers of torch's loop, and no writes into foreign memory."""

from __future__ import annotations

import copy
import logging
import pickle
import warnings
from dataclasses import dataclass

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lightning_optim import ConfigError, OptimizerFactory, optimizer_info
from tests.support.cases import every
from tests.support.layouts import LAYOUTS, lay_out, surroundings

OPTIMIZERS = {
    "adamw": {"lr": 0.1},
    "adam": {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1},
    "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adagrad": {"lr": 0.1},
}
IMPLEMENTATIONS = {
    "auto": {},
    "own": {"implementation": "own"},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
LOOP = {"implementation": "torch", "fused": False, "foreach": False}
# The kernels and the loop round in another order: a few units in the last place of float64, over a few steps.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Case:
    name: str
    implementation: str
    shapes: tuple[tuple[int, ...], ...]
    params: tuple[str, ...]
    """The layout of each parameter."""
    grads: tuple[tuple[str, ...], ...]
    """By step: that of each gradient, or `expanded`, or `none`."""
    states: tuple[str, ...]
    """That of each state after two steps, set by hand."""
    load: str
    """After two steps: `none`; or into an optimizer of parameters in the same layouts, or in other ones."""


SHAPES = ((), (3,), (4, 3), (3, 3), (2, 1, 3), (4, 3, 2, 2), (4, 3, 1, 1), (0, 3))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shapes = tuple(draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)))

    def layouts(*more: str) -> tuple[str, ...]:
        return tuple(draw(st.sampled_from([*LAYOUTS, *more])) for _ in shapes)

    name = draw(st.sampled_from(list(OPTIMIZERS)))
    has_own = bool(optimizer_info(name).own)
    implementation = draw(st.sampled_from([key for key in IMPLEMENTATIONS if has_own or key != "own"]))
    # torch's foreach writes Nesterov's sum into the gradient, and refuses where that is expanded.
    kinds = ("none",) if (name, implementation) == ("sgd", "foreach") else ("none", "expanded")
    return Case(
        name=name,
        implementation=implementation,
        shapes=shapes,
        params=layouts(),
        grads=tuple(layouts(*kinds) for _ in range(4)),
        states=layouts("as they are", "as they are", "as they are"),
        load=draw(st.sampled_from(["none", "same", "other"])),
    )


def values(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(case: Case, layouts: tuple[str, ...], flags: dict) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    params = [
        nn.Parameter(lay_out(values(shape, 50 + index), layout))
        for index, (shape, layout) in enumerate(zip(case.shapes, layouts, strict=True))
    ]
    named = [(f"p{index}", param) for index, param in enumerate(params)]
    return params, OptimizerFactory(case.name, **OPTIMIZERS[case.name], **flags)(named)


def take_step(
    case: Case, params: list[nn.Parameter], optimizer: torch.optim.Optimizer, t: int, *, is_loop: bool
) -> None:
    for index, (param, layout) in enumerate(zip(params, case.grads[t], strict=True)):
        grad = values(tuple(param.shape), 10 * t + index)
        if layout == "expanded":
            param.grad = grad[:1].clone().expand(param.shape) if grad.ndim and grad.numel() else grad
            if is_loop:
                param.grad = param.grad.contiguous()
        else:
            param.grad = None if layout == "none" else grad if is_loop else lay_out(grad, layout)
    optimizer.step()


def train(case: Case, *, is_loop: bool) -> list[torch.Tensor]:
    contiguous = ("contiguous",) * len(case.shapes)
    flags = LOOP if is_loop else IMPLEMENTATIONS[case.implementation]
    params, optimizer = build(case, contiguous if is_loop else case.params, flags)
    for t in (0, 1):
        take_step(case, params, optimizer, t, is_loop=is_loop)
    if case.load != "none":
        others = case.params if case.load == "same" else (*case.params[1:], "reversed")
        new_params, resumed = build(case, contiguous if is_loop else others, flags)
        with torch.no_grad():
            for new, old in zip(new_params, params, strict=True):
                new.copy_(old)
        resumed.load_state_dict(optimizer.state_dict())
        params, optimizer = new_params, resumed
    if not is_loop:
        for param, layout in zip(params, case.states, strict=True):
            state = optimizer.state.get(param, {})
            for key, value in state.items():
                if layout != "as they are" and isinstance(value, torch.Tensor) and value.shape == param.shape:
                    state[key] = value if key == "step" else lay_out(value, layout)
    for t in (2, 3):
        take_step(case, params, optimizer, t, is_loop=is_loop)
    for param in params:
        assert (surroundings(param.detach()) == 7).all()
    return [param.detach().clone() for param in params]


def check(case: Case) -> None:
    for found, expected in zip(train(case, is_loop=False), train(case, is_loop=True), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def settings(num_examples: int) -> hypothesis.settings:
    return hypothesis.settings(max_examples=num_examples, deadline=None, derandomize=True, database=None)


@settings(50)
@hypothesis.given(cases())
def test_any_layouts_give_the_numbers_of_torch_s_loop(case):
    check(case)


@pytest.mark.slow
@settings(1000)
@hypothesis.given(cases())
def test_any_layouts_give_the_numbers_of_torch_s_loop_in_many_examples(case):
    check(case)


# Which kernel runs


def conv(channels_last: bool = False, **given) -> tuple[nn.Conv2d, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return model, OptimizerFactory("adamw", **given)(model)


def step_and_trace(optimizer: torch.optim.Optimizer) -> bool:
    """Take a step; returns whether a fused kernel ran."""
    with torch.profiler.profile() as profile:
        optimizer.step()
    return any("_fused_" in event.key for event in profile.key_averages())


def backward(model: nn.Module) -> None:
    model.zero_grad()
    model(torch.ones(2, 3, 5, 5)).square().sum().backward()


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_of_autograd_are_stepped_by_the_kernel_from_the_first_step_on(channels_last):
    model, optimizer = conv(channels_last)
    for _ in range(3):
        backward(model)
        assert step_and_trace(optimizer)


def test_one_step_with_another_layout_runs_without_the_kernel_and_is_logged_once(caplog):
    model, optimizer = conv()
    ran = []
    with caplog.at_level(logging.WARNING, "lightning_optim"):
        for step in range(5):
            backward(model)
            if step in (1, 3):
                model.weight.grad = model.weight.grad.to(memory_format=torch.channels_last)
            ran.append(step_and_trace(optimizer))
            assert optimizer.param_groups[0]["fused"] is True
    assert ran == [True, False, True, False, True]
    assert len(caplog.records) == 1 and "param group 'default'" in caplog.text


def test_a_model_moved_to_another_layout_during_training_is_noticed():
    model, optimizer = conv()
    backward(model)
    assert step_and_trace(optimizer)
    model.to(memory_format=torch.channels_last)
    backward(model)
    assert not step_and_trace(optimizer)


def test_a_state_changed_in_place_is_noticed():
    model, optimizer = conv()
    for _ in range(3):
        backward(model)
        optimizer.step()
    buffer = optimizer.state[model.weight]["exp_avg"]
    buffer.data = buffer.data.to(memory_format=torch.channels_last)
    backward(model)
    assert not step_and_trace(optimizer)


def test_gradients_that_come_and_go_keep_the_kernel():
    model, optimizer = conv()
    for step in range(4):
        backward(model)
        if step % 2:
            model.bias.grad = None
        assert step_and_trace(optimizer)


def test_only_the_group_that_differs_steps_without_the_kernel():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    optimizer = OptimizerFactory("adamw", groups={"second": {"params": "1", "lr_scale": 1.0}})(model)
    seen = []
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    model[1].weight.grad = model[1].weight.grad.to(memory_format=torch.channels_last)

    class Spy(dict):
        def __getitem__(self, key):
            value = super().__getitem__(key)
            if key == "fused":
                seen.append((super().__getitem__("name"), value))
            return value

    optimizer.param_groups[:] = [Spy(group) for group in optimizer.param_groups]
    optimizer.step()
    assert ("default", True) in seen and ("second", None) in seen and ("second", False) not in seen


def test_the_flag_is_restored_after_a_step_that_raises():
    model, optimizer = conv()
    backward(model)
    model.weight.grad = model.weight.grad.to(memory_format=torch.channels_last)
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["fused"] is True
    assert optimizer.param_groups[0]["fused"] is True


def test_a_hook_that_changes_a_gradient_s_layout_runs_before_the_check():
    model, optimizer = conv()

    def relay(*_):
        model.weight.grad = model.weight.grad.to(memory_format=torch.channels_last)

    optimizer.register_step_pre_hook(relay)
    backward(model)
    assert not step_and_trace(optimizer)


def test_gradients_computed_in_the_closure_are_checked():
    model, optimizer = conv()

    def closure():
        backward(model)
        model.weight.grad = model.weight.grad.to(memory_format=torch.channels_last)
        return torch.tensor(3.0)

    with torch.profiler.profile() as profile:
        assert optimizer.step(closure) == 3.0
    assert not any("_fused_" in event.key for event in profile.key_averages())


WRONG = {
    "state": lambda model, optimizer: optimizer.state[model.weight].update(exp_avg=torch.zeros(2, 3, 3, 3)),
    "state in place": lambda model, optimizer: setattr(
        optimizer.state[model.weight]["exp_avg"], "data", torch.zeros(3)
    ),
    "gradient": lambda model, optimizer: setattr(model.weight.grad, "data", torch.zeros(2, 3, 3, 3)),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_shape_is_refused_by_name(case):
    model, optimizer = conv()
    for _ in range(2):
        backward(model)
        optimizer.step()
    before = model.weight.detach().clone()
    backward(model)
    WRONG[case](model, optimizer)
    with pytest.raises(ConfigError, match=r"weight: its (exp_avg|gradient) has the shape .*\[4, 3, 3, 3\]"):
        optimizer.step()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", every(OPTIMIZERS, fast=["sgd"]))
def test_children_of_a_composite_are_checked_too(name):
    def run(**given):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
        groups = {"second": {"params": "1", "optimizer": "lion"}}
        optimizer = OptimizerFactory(name, **OPTIMIZERS[name], groups=groups, **given)(model)
        for step in range(4):
            for index, param in enumerate(model.parameters()):
                grad = values(tuple(param.shape), 10 * step + index).float()
                param.grad = lay_out(grad, "channels_last" if given == {} else "contiguous")
            optimizer.step()
        return [param.detach().clone() for param in model.parameters()], optimizer.param_groups[0]["fused"]

    (found, flag), (expected, _) = run(), run(fused=False)
    assert flag is True
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.slow
def test_a_compiled_step_is_checked_too():
    def run(*, compiled):
        model, optimizer = conv()
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for index in range(4):
            backward(model)
            if index % 2:
                model.weight.grad = model.weight.grad.to(memory_format=torch.channels_last)
            step()
            assert optimizer.param_groups[0]["fused"] is True
        return model.weight.detach()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(run(compiled=True), run(compiled=False))


def test_a_copy_and_an_unpickled_optimizer_are_checked_too():
    model, optimizer = conv()
    backward(model)
    optimizer.step()
    copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    for other_model, other in copies:
        assert type(other) is torch.optim.AdamW
        backward(other_model)
        other_model.weight.grad = other_model.weight.grad.to(memory_format=torch.channels_last)
        assert not step_and_trace(other)


def test_dtensors_beside_plain_tensors_step_without_the_kernel(tmp_path):
    """As under tensor parallelism; torch's kernel raises there."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        for options in ({}, {"fused": True}):
            module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            module[0].weight = nn.Parameter(distribute_tensor(module[0].weight.detach(), mesh, [Shard(0)]))
            plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            plain.load_state_dict({key: _full(value) for key, value in module.state_dict().items()})
            for net, arguments in ((module, options), (plain, {"fused": False})):
                optimizer = OptimizerFactory("adamw", lr=0.1, **arguments)(net)
                for parameter in net.parameters():
                    parameter.grad = parameter.detach() * 2
                optimizer.step()
            for parameter, expected in zip(module.parameters(), plain.parameters(), strict=True):
                assert torch.equal(_full(parameter), expected)
    finally:
        torch.distributed.destroy_process_group()


def _full(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
