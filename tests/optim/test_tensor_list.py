"""A method of a TensorList does to each tensor what the tensor's method does, or is refused."""

from __future__ import annotations

import copy
import operator

import pytest
import torch

from lightning_optim.optim.tensor_list import TensorList

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# The methods that rules use, with arguments; `x` stands for another list.
METHODS = [
    ("lerp_", ("x", 0.1), {}),
    ("mul", (0.999,), {}),
    ("mul", ("x",), {}),
    ("mul_", (0.999,), {}),
    ("mul_", ("x",), {}),
    ("add", (1e-3,), {}),
    ("add", ("x",), {"alpha": -0.3}),
    ("add_", (1e-3,), {}),
    ("add_", ("x",), {"alpha": -0.3}),
    ("sub", ("x",), {}),
    ("div", (0.7,), {}),
    ("div", ("x",), {}),
    ("div_", ("x",), {}),
    ("addcmul", ("x", "x"), {"value": -1}),
    ("addcmul_", ("x", "x"), {"value": 0.001}),
    ("addcdiv_", ("x", "x"), {"value": -0.37}),
    ("sqrt", (), {}),
    ("sqrt_", (), {}),
    ("reciprocal_", (), {}),
    ("abs", (), {}),
    ("sign", (), {}),
    ("sign_", (), {}),
    ("neg", (), {}),
    ("clamp_min_", (0.3,), {}),
    ("clamp_min_", ("x",), {}),
    ("clamp_max_", (0.3,), {}),
    ("norm", (), {}),
    ("max", ("x",), {}),
    ("max", (), {}),
    ("min", ("x",), {}),
    ("pow", (2,), {}),
    ("gt", (0.5,), {}),
    ("to", (torch.float64,), {}),
]


def lists(dtype):
    generator = torch.Generator().manual_seed(0)
    return [[torch.rand(shape, generator=generator).to(dtype) + 0.1 for shape in SHAPES] for _ in range(2)]


def with_others(args, others):
    return [others if arg == "x" else arg for arg in args]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "args", "kwargs"), METHODS, ids=str)
def test_a_method_is_applied_to_each_tensor(name, args, kwargs, dtype):
    tensors, others = lists(dtype)
    expected = [
        getattr(tensor.clone(), name)(*with_others(args, other), **kwargs)
        for tensor, other in zip(tensors, others, strict=True)
    ]
    tensor_list = TensorList(copy.deepcopy(tensors))
    result = getattr(tensor_list, name)(*with_others(args, TensorList(others)), **kwargs)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(result.tensors, expected, strict=True))
    in_place = name.endswith("_")
    assert (result is tensor_list) == in_place
    assert in_place or all(torch.equal(a, b) for a, b in zip(tensor_list.tensors, tensors, strict=True))


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv], ids=lambda op: op.__name__)
def test_operators_make_new_lists(op):
    tensors, others = lists(torch.float32)
    for given, each in ((TensorList(others), others), (0.5, [0.5] * len(tensors))):
        result = op(TensorList(tensors), given)
        assert all(torch.equal(r, op(a, b)) for r, a, b in zip(result.tensors, tensors, each, strict=True))
        result = op(given, TensorList(tensors))
        assert all(torch.equal(r, op(b, a)) for r, a, b in zip(result.tensors, tensors, each, strict=True))
    assert torch.equal((-TensorList(tensors)).tensors[0], -tensors[0])
    assert torch.equal((TensorList(tensors) ** 2).tensors[0], tensors[0] ** 2)


REFUSED = {
    "bool": bool,
    "eq": lambda x: x == x,
    "ne": lambda x: x != 1,
    "lt": lambda x: x < 1,
    "le": lambda x: x <= 1,
    "gt": lambda x: x > 1,
    "ge": lambda x: x >= 1,
    "iadd": lambda x: operator.iadd(x, x),
    "isub": lambda x: operator.isub(x, 1),
    "imul": lambda x: operator.imul(x, 2),
    "itruediv": lambda x: operator.itruediv(x, 2),
}


@pytest.mark.parametrize("what", REFUSED)
def test_operators_that_mean_something_else_for_lists_are_refused(what):
    with pytest.raises(TypeError, match="a TensorList is many tensors"):
        REFUSED[what](TensorList([torch.ones(2)]))


@pytest.mark.parametrize("what", [hash, iter, len, lambda x: x[0], lambda x: x @ x, lambda x: 2**x])
def test_it_is_neither_a_list_nor_a_tensor(what):
    with pytest.raises(TypeError):
        what(TensorList([torch.ones(2)]))


@pytest.mark.parametrize("name", ["mull_", "shape", "data", "grad", "_version", "__len__", "append"])
def test_it_has_only_the_methods_of_a_tensor(name):
    with pytest.raises(AttributeError, match=name):
        getattr(TensorList([torch.ones(2)]), name)


def test_a_method_without_a_foreach_function_is_a_loop():
    assert not hasattr(torch, "_foreach_where")
    tensors, others = lists(torch.float32)
    result = TensorList(tensors).where(TensorList(tensors).gt(TensorList(others)), 0.0)
    assert all(torch.equal(r, a.where(a > b, 0.0)) for r, a, b in zip(result.tensors, tensors, others, strict=True))


def test_a_foreach_function_is_called_once(monkeypatch):
    calls = []
    real = torch._foreach_lerp_
    monkeypatch.setattr(torch, "_foreach_lerp_", lambda *args: calls.append(len(args[0])) or real(*args))
    tensors, others = lists(torch.float32)
    TensorList(tensors).lerp_(TensorList(others), 0.5)
    assert calls == [len(SHAPES)]


def test_its_repr_shows_its_tensors():
    assert repr(TensorList([torch.ones(1)])) == "TensorList([tensor([1.])])"
