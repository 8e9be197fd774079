"""What torch refuses in its first step is refused before it, with the key and the parameter; nothing has changed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.cases import every

CAPTURABLE = ["adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "rprop"]


def build(name, *, sparse=False, **given):
    model = nn.Sequential(nn.Embedding(5, 3, sparse=sparse), nn.Linear(3, 2))
    return model, OptimizerFactory(name, implementation="auto", **given)(model)


def backward(model, optimizer):
    optimizer.zero_grad()
    loss = model(torch.tensor([1, 2])).square().sum()
    loss.backward()
    return loss


def unpickled(pair):
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("name", every(CAPTURABLE, fast=["rprop"]))
@pytest.mark.parametrize("duplicate", [None, copy.deepcopy, unpickled], ids=["built", "copied", "unpickled"])
def test_capturable_is_refused_where_the_device_does_not_take_it(name, duplicate):
    model, optimizer = build(name, capturable=True)
    if duplicate:
        model, optimizer = duplicate((model, optimizer))
    before = copy.deepcopy(model.state_dict())
    backward(model, optimizer)
    with pytest.raises(ConfigError, match=r"^capturable: .* group 'default' with it on cpu: .*Type capturable: false"):
        optimizer.step()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_capturable_is_left_alone_where_the_kernel_takes_it():
    model, optimizer = build("adamw", capturable=True, fused=True)
    before = copy.deepcopy(model.state_dict())
    backward(model, optimizer)
    optimizer.step()
    assert not torch.equal(model[1].weight, before["1.weight"])


def test_differentiable_is_refused_for_parameters_of_a_module():
    model, optimizer = build("adam", differentiable=True)
    backward(model, optimizer)
    with pytest.raises(ConfigError, match=r"^differentiable: torch steps no parameters of a module with it"):
        optimizer.step()


@pytest.mark.parametrize("by_closure", [False, True], ids=["gradients", "closure"])
def test_a_dense_gradient_is_refused_before_sparse_adam_takes_it(by_closure):
    model, optimizer = build("adamw", groups={"tokens": {"params": "0.*", "optimizer": "sparse_adam"}})
    before = copy.deepcopy(model.state_dict())
    closure = (lambda: backward(model, optimizer)) if by_closure else None
    if not by_closure:
        backward(model, optimizer)
    with pytest.raises(ConfigError, match=r"^0.weight: its gradient is dense, and sparse_adam takes sparse ones only"):
        optimizer.step(closure)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_sparse_gradient_is_taken():
    groups = {"tokens": {"params": "0.*", "optimizer": "sparse_adam"}}
    model, optimizer = build("adamw", sparse=True, groups=groups)
    before = model[0].weight.detach().clone()
    optimizer.step(lambda: backward(model, optimizer))
    assert not torch.equal(model[0].weight, before)
