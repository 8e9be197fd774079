"""Gradients and parameters of any layout: a kernel takes those that are dense in one layout, the loop the others."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
import torch

from lightning_optim import optim
from tests.support.fused_runs import count_skipped, relative_error

IMAGE = (4, 3, 2, 2)


def channels_last(shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


# The parameter, its gradient, and whether the loop must take it.
CASES = {
    "none": (lambda: torch.randn(3), lambda: None, False),
    "empty": (lambda: torch.randn(0, 2), lambda: torch.randn(0, 2), False),
    "0-d": (lambda: torch.randn(()), lambda: torch.randn(()), False),
    "transposed gradient": (lambda: torch.randn(3, 4), lambda: torch.randn(4, 3).t(), True),
    "both transposed": (lambda: torch.randn(4, 3).t(), lambda: torch.randn(4, 3).t(), False),
    "with gaps": (lambda: torch.randn(3, 8)[:, ::2], lambda: torch.randn(3, 4), True),
    "expanded gradient": (lambda: torch.randn(3, 4), lambda: torch.randn(4).expand(3, 4), True),
    "channels last": (lambda: channels_last(IMAGE), lambda: channels_last(IMAGE), False),
    "channels last gradient": (lambda: torch.randn(IMAGE), lambda: channels_last(IMAGE), True),
    "channels last parameter": (lambda: channels_last(IMAGE), lambda: torch.randn(IMAGE), True),
    "negated view": (lambda: torch.randn(3), lambda: torch._neg_view(torch.randn(3)), True),
    "conjugated": (
        lambda: torch.randn(3, dtype=torch.complex64),
        lambda: torch.randn(3, dtype=torch.complex64).conj().conj_physical(),
        False,
    ),
    "lazily conjugated": (
        lambda: torch.randn(3, dtype=torch.complex64),
        lambda: torch.randn(3, dtype=torch.complex64).conj(),
        True,
    ),
    "subclass": (lambda: torch.randn(3), lambda: torch.randn(3).as_subclass(Subclass), True),
}


class Subclass(torch.Tensor):
    pass


class DeclaredSign(optim.AdaptiveOptimizer):
    """A rule without buffers."""

    def __init__(self, params, lr, **options):
        super().__init__(params, {"lr": lr}, **options)

    def coefficients(self, t, group):
        return {"lr": group["lr"]}

    @staticmethod
    def update(p, g, *, lr):
        return optim.Update(g.sign(), lr)


def steps(cls, make_params, grads, **execution):
    params = make_params()
    optimizer = cls([*params], lr=0.1, **execution)
    for step in grads:
        for param, grad in zip(params, step, strict=True):
            param.grad = grad
        optimizer.step()
    return params


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cls", [optim.AdamW, optim.LAMB, optim.AdamP], ids=lambda cls: cls.__name__)
def test_each_layout_takes_the_step_of_the_loop(cls, case, monkeypatch):
    """Beside a plain parameter, which the kernel must take all the same."""
    torch.manual_seed(0)
    make_param, make_grad, loops = CASES[case]
    initial = [make_param(), torch.randn(5)]
    grads = [[make_grad(), torch.randn(5)] for _ in range(4)]
    counts = count_skipped(monkeypatch)

    def make():
        # Of the same strides, gaps included.
        return [torch.nn.Parameter(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)) for x in initial]

    fused, loop = steps(cls, make, grads, fused=True), steps(cls, make, grads, foreach=False, fused=False)
    to_real = [torch.view_as_real(x) if x.is_complex() else x for x in (*fused, *loop)]
    assert relative_error(to_real[:2], to_real[2:]) <= 2e-7
    rows_of_a_strided = cls is optim.AdamP and not initial[0].is_contiguous()
    assert any(counts) == (loops or rows_of_a_strided)


def test_parameters_of_one_memory_step_one_after_the_other():
    def make():
        shared = torch.ones(4)
        return [torch.nn.Parameter(shared), torch.nn.Parameter(shared), torch.nn.Parameter(torch.ones(4))]

    torch.manual_seed(0)
    grads = [[torch.randn(4) for _ in range(3)] for _ in range(4)]
    fused, loop = steps(optim.AdamW, make, grads, fused=True), steps(optim.AdamW, make, grads, fused=False)
    assert relative_error(fused, loop) <= 1e-7


def test_parameters_that_overlap_step_one_after_the_other(monkeypatch):
    size, counts = 1 << 16, count_skipped(monkeypatch)

    def make():
        memory = torch.ones(size + 8)
        return [torch.nn.Parameter(memory[:size]), torch.nn.Parameter(memory[8:]), torch.nn.Parameter(torch.ones(4))]

    torch.manual_seed(0)
    grads = [[torch.randn(size), torch.randn(size), torch.randn(4)] for _ in range(4)]
    assert torch.equal(*(steps(optim.Lion, make, grads, fused=fused)[0] for fused in (True, False)))
    assert counts == [0, 2] * 4  # the third one, and what it leaves of all


def test_a_parameter_that_shrinks_in_place_keeps_the_rest_of_its_memory():
    memory = torch.zeros(8)
    param = torch.nn.Parameter(memory.view(8))
    optimizer = DeclaredSign([param], lr=1.0, fused=True)
    for size in (8, 4):
        param.data = memory[:size]
        param.grad = torch.ones(size)
        optimizer.step()
    assert memory.tolist() == [-2.0] * 4 + [-1.0] * 4


@pytest.mark.slow
def test_tensors_that_nothing_else_holds_are_freed():
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = optim.AdamW([{"params": [param]} for param in params], fused=True)
    for param in params:
        param.grad = torch.ones(3)
    first_grad = ref(params[0].grad)
    optimizer.step()
    params[0].grad = None
    assert first_grad() is None
    removed = ref(params[1])
    optimizer.state.pop(params[1])
    optimizer.param_groups.pop()
    del params[1], param
    gc.collect()
    assert removed() is None


@pytest.mark.slow
def test_the_default_device_changes_nothing():
    def make():
        return [torch.nn.Parameter(torch.ones(40, 30))]

    torch.manual_seed(0)
    grads = [[torch.randn(40, 30)] for _ in range(2)]
    expected = steps(optim.LAMB, make, grads, fused=True, centralize_gradients=True)
    params = make()
    optimizer = optim.LAMB(params, lr=0.1, fused=True, centralize_gradients=True)
    with torch.device("meta"):
        for (params[0].grad,) in grads:
            optimizer.step()
    assert torch.equal(*params, *expected)


def test_tensors_that_move_are_found_again():
    """`.data`, a loaded state and new gradients put a tensor elsewhere."""
    torch.manual_seed(0)
    runs = []
    for fused in (True, False):
        torch.manual_seed(0)
        param = torch.nn.Parameter(torch.randn(6))
        optimizer = optim.AdamW([param], lr=0.1, fused=fused)
        for step in range(6):
            param.grad = torch.randn(6)
            optimizer.step()
            if step == 1:
                param.data = param.data.clone()
            if step == 2:
                optimizer.load_state_dict(optimizer.state_dict())
            if step == 3:
                state = optimizer.state[param]
                state["exp_avg"].data = state["exp_avg"].data.clone()
        runs.append([param])
    assert relative_error(*runs) <= 1e-7


def test_a_step_after_the_forward_pass_is_seen_by_autograd():
    """As any write to a tensor that a backward pass still needs."""
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    weight.grad = torch.ones(3)
    optim.AdamW([weight], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_rounding_of_masters_is_seen_by_autograd():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    loss = (weight * weight).sum()
    weight.grad = torch.ones_like(weight)
    optim.AdamW([weight], fused=True, master_weights=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
